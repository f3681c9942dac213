"""Tables of named entries that users may extend: each name has an entry, or the entry's module.

A module is imported when its entry is looked up, so that choosing one does not load the others. A
table is the only list of its names; experiment sections, commands and reports use it.
"""

import difflib
import importlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fedsi.blame import kind_of, with_article
from fedsi.errors import UserError
from fedsi.import_path import EXAMPLE, check_import_path, load_own

if TYPE_CHECKING:
    from pydantic import BaseModel

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Table(Generic[Entry]):
    """Names and their entries.

    ``table["name"]`` imports the module of that name and returns its entry.
    """

    key: str
    """The option that chooses an entry, such as ``privacy.mechanism`` or ``--engine``."""
    kind: str
    """Import path of the class of every entry."""
    attribute: str
    """Name of the entry in its module."""
    entries: dict[str, str | Entry]
    """The module of each name, or the entry itself if it imports nothing more."""
    own: str = ""
    """Custom object that an import path may name instead of an entry, in words, such as "a Task of
    yours"; empty if import paths are not allowed."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Entry:
        """Return the entry of a name, or the custom object that an import path names.

        Raises:
            UserError: The table has no such name, or the user's object is not found or of another
                kind.
        """
        kind: type[Entry] = load(self.kind)
        entry: Any
        if self.is_own(name):
            entry = load_own(self.key, name)
            if not isinstance(entry, kind):
                raise UserError(
                    f"{name} is {kind_of(entry)}, and {self.key} takes {with_article(kind)} of "
                    f"{kind.__module__}; name one"
                )
            return entry
        entry = self.entries[self.known(name)]
        if isinstance(entry, str):
            entry = getattr(importlib.import_module(entry), self.attribute)
        if not isinstance(entry, kind):
            raise TypeError(f"the entry {name} of {self.key} is no {kind.__name__}")
        return entry

    def is_own(self, name: str) -> bool:
        """Whether a name is the import path of a custom object."""
        return bool(self.own) and ":" in name

    def known(self, name: str, besides: Sequence[str] = ()) -> str:
        """Return a name if the table has it or it is an allowed import path.

        Args:
            name: The name given by the user.
            besides: Other names that are allowed.

        Raises:
            UserError: The table has no such name; gives the nearest name and all names.
        """
        if self.is_own(name):
            check_import_path(self.key, name)
            return name
        own = f", or the import path of {self.own}, as in {EXAMPLE}" if self.own else ""
        return known_name(self.key, [*besides, *self.entries], name, own)


def known_name(key: str, names: Sequence[str], name: str, more: str = "") -> str:
    """Return a name if it is one of those known.

    Args:
        key: The key or option that has the name as its value.
        names: All names.
        name: The name given by the user.
        more: Other allowed values, as the end of the error's sentence.

    Raises:
        UserError: It is not known; suggests a similar name and lists all.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, n=1)
    meant = f" did you mean {near[0]}?" if near else ""
    raise UserError(
        f"{key} = {name!r} is not allowed:{meant} expected one of {', '.join(names)}{more}"
    )


def load(path: str) -> Any:
    """Return the object of fedsi's own that an import path ``module:name`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def without_effect(key: str, choice: str, chosen: str, owners: Sequence[str]) -> str:
    """Return the sentence that a key has no effect with the chosen entry.

    Args:
        key: The key that was given.
        choice: The key that chooses the entry.
        chosen: The entry's name.
        owners: Names of the entries that use the key.
    """
    instead = f"set {choice}={' or '.join(owners)} or leave it out" if owners else "leave it out"
    return f"{key} has no effect with {choice}={chosen}; {instead}"


def refuse_without_effect(
    settings: "BaseModel", section: str, used: Collection[str], chooser: str
) -> None:
    """Refuse keys that differ from their defaults but have no effect.

    Args:
        settings: A section of an experiment.
        section: Its name.
        used: Names of the keys that the chosen entry uses.
        chooser: Name of the key that chooses the entry; it has an effect.

    Raises:
        ValueError: An unused key differs from its default.
    """
    for key, field in type(settings).model_fields.items():
        value = getattr(settings, key)
        if key != chooser and key not in used and value != field.default:
            raise ValueError(
                f"{section}.{key}={written(value)} has no effect with "
                f"{section}.{chooser}={getattr(settings, chooser)}, which does not use it; leave "
                "it out"
            )


def written(value: object) -> object:
    """Return a value as it is written in a TOML file."""
    return str(value).lower() if isinstance(value, bool) else value
