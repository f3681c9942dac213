"""A reference of an experiment's keys: default, allowed values, meaning.

All of it is read from the settings themselves, so no second list can differ from them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from fedsi.errors import UserError
from fedsi.experiment.experiment import Experiment
from fedsi.experiment.explanations import unknown_key
from fedsi.experiment.field_types import Settings

_INTRODUCTION = """# Keys of an experiment

`fedsi keys --markdown` writes this page from the settings' own descriptions; `fedsi keys server`
and `fedsi keys server.rounds` show a part of it. The [tutorial](tutorial.md) explains how to set
keys.
"""


@dataclass(frozen=True)
class Key:
    """One key of an experiment; texts are as in docstrings, with code in double backquotes."""

    name: str
    """The dotted name, such as ``server.rounds``."""
    default: str
    """The default as written on a command line."""
    allowed: str
    """The choices, or the type of the value and its limits."""
    meaning: str


@dataclass(frozen=True)
class Section:
    """A group of keys."""

    name: str
    """The name, such as ``server``; empty for keys without a section."""
    about: str
    keys: tuple[Key, ...]


def sections() -> list[Section]:
    """Return all keys of an experiment, section by section."""
    found = []
    alone = []
    for name, field in Experiment.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Settings):
            keys = (_key(f"{name}.{key}", inner) for key, inner in kind.model_fields.items())
            found.append(Section(name, " ".join((kind.__doc__ or "").split()), tuple(keys)))
        else:
            alone.append(_key(name, field))
    return [Section("", "The whole experiment.", tuple(alone)), *found]


def keys_of(name: str) -> list[Section]:
    """Return one section, or a single key in its section.

    Raises:
        UserError: No section or key has this name.
    """
    every = sections()
    for section in every:
        single = tuple(key for key in section.keys if key.name == name)
        if single:
            return [Section(section.name, section.about, single)]
        if name == section.name:
            return [section]
    names = [key.name for section in every for key in section.keys]
    raise UserError(unknown_key(name, [*names, *(one.name for one in every if one.name)]))


def page() -> str:
    """Return the page ``docs/keys.md``: all keys, in Markdown."""
    return f"{_INTRODUCTION}\n{keys_markdown(sections())}"


def keys_markdown(chosen: Iterable[Section]) -> str:
    """Return tables of sections and their keys in Markdown, each below a heading."""
    return "\n".join(line for section in chosen for line in _table(section))


def _table(section: Section) -> Iterator[str]:
    yield f"## `{section.name}`: {_plain(section.about)}" if section.name else "## Experiment"
    yield from ("", "| key | default | allowed | meaning |", "|---|---|---|---|")
    for key in section.keys:
        cells = (f"`{key.name}`", f"`{key.default}`", _plain(key.allowed), _plain(key.meaning))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _plain(text: str) -> str:
    return text.replace("``", "`").removesuffix(".")


def _key(name: str, field: FieldInfo) -> Key:
    kind: Any = Annotated[field.annotation, field]
    return Key(
        name,
        _written(field.default),
        _allowed(TypeAdapter(kind).json_schema()),
        " ".join((field.description or "").split()),
    )


def _written(value: object) -> str:
    """Return a value as written after ``--set``."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(schema: dict[str, Any]) -> str:
    """Return a JSON schema's constraints in words."""
    if "anyOf" in schema:
        return " or ".join(_allowed(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"``{choice}``" for choice in schema["enum"])
    words = {
        "null": "``none``",
        "boolean": "``true``, ``false``",
        "integer": f"whole number{_limits(schema)}",
        "number": f"number{_limits(schema)}",
        "string": "text",
        "object": "table",
    }
    return words[schema["type"]]


def _limits(schema: dict[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {_number(schema[name])}" for name, sign in signs.items() if name in schema]
    return f" {' and '.join(limits)}" if limits else ""


def _number(limit: float) -> str:
    if limit == 2**63:
        return "2^63"
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"
