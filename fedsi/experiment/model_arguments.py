"""The table ``model.arguments``: keyword arguments of a user's factory."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_plain_validator_function,
    plain_serializer_function_ser_schema,
)

KEY = "model.arguments"


class Arguments(Mapping[str, Any]):
    """Immutable names and values, typed as in TOML: 1 and 1.0 differ.

    Args:
        values: Booleans, integers, finite numbers, texts, and lists of them.

    Raises:
        ValueError: A name is not a valid argument name, or a value has another type.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        for name in values or {}:
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError(f"{KEY} has {name!r}, which is no name of an argument")
        named = {name: frozen_value(name, value) for name, value in (values or {}).items()}
        self._values = dict(sorted(named.items()))

    def __getitem__(self, name: str) -> Any:
        return _plain(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arguments) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return repr(dict(self))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_plain_validator_function(
            cls._of, serialization=plain_serializer_function_ser_schema(dict)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "object"}

    @classmethod
    def _of(cls, given: object) -> "Arguments":
        if not isinstance(given, Mapping):
            raise ValueError(f"{KEY} = {given!r} is not allowed: expected a table of arguments")
        return cls(given)


def frozen_value(name: str, value: Any) -> Any:
    """Return the value of an argument, with lists as tuples.

    Raises:
        ValueError: The value cannot be represented in TOML.
    """
    if isinstance(value, list | tuple):
        return tuple(frozen_value(name, each) for each in value)
    whole = isinstance(value, bool | int | str)
    if not whole and not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError(
            f"{KEY}.{name} = {value!r} is not allowed: expected a truth value, a finite number, "
            "text, or a list of such"
        )
    return value


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
