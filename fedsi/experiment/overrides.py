"""Parsing of single keys' values from the command line."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, TypeAdapter, ValidationError

from fedsi.errors import UserError
from fedsi.experiment.experiment import Experiment
from fedsi.experiment.model_arguments import KEY as ARGUMENTS
from fedsi.experiment.model_arguments import frozen_value

_NOTHING = {"~", "none", "null"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` words.

    A value is the first of these readings that its key accepts: its meaning in TOML; the number,
    boolean or absent value that people write as ``.3``, ``1e2``, ``True`` or ``None``; the text
    itself; the text in lower case. So a column can be called ``0``. The last value of a key counts,
    so that a command can be changed by adding to it.

    Raises:
        UserError: A word without ``=`` or without a key.
    """
    changes: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set takes KEY=VALUE, for example server.rounds=10, not {pair!r}")
        changes[key.strip()] = _value(key.strip(), text.strip())
    return changes


def _value(key: str, text: str) -> Any:
    """Return the first reading that the key accepts, or the first of all if it accepts none."""
    readings = list(_readings(text))
    kind = _kind(key)
    return next((r for r in readings if kind and _takes(kind, r)), readings[0])


def _takes(kind: TypeAdapter[Any], reading: Any) -> bool:
    try:
        kind.validate_python(reading)
    except ValidationError:
        return False
    return True


def _readings(text: str) -> Iterator[Any]:
    with suppress(ValueError, RecursionError):
        yield tomllib.loads(f"value = {text}")["value"]
    if _NUMBER.fullmatch(text):
        number = float(text)
        yield number
        if number.is_integer():
            yield int(number)
    if text.lower() in {"true", "false"}:
        yield text.lower() == "true"
    if text.lower() in _NOTHING:
        yield None
    yield text
    yield "none" if text.lower() in _NOTHING else text.lower()  # the names of choices


@cache
def _kind(key: str) -> TypeAdapter[Any] | None:
    """Return the validator of a key's value; None for an unknown key."""
    section, _, name = key.rpartition(".")
    if section == ARGUMENTS:
        return TypeAdapter(Annotated[Any, AfterValidator(partial(frozen_value, name))])
    settings: Any = Experiment.model_fields[section].annotation if section in _SECTIONS else None
    fields = settings.model_fields if settings else {} if section else Experiment.model_fields
    if name not in fields or name in _SECTIONS:
        return None
    field = fields[name]
    kind: Any = Annotated[field.annotation, field]
    return TypeAdapter(kind)


_SECTIONS = {
    name
    for name, field in Experiment.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
