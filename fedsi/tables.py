"""Tables of what a user may add: each name stands for a module that holds the entry.

An entry is imported when it is looked up, so that choosing one does not load the others. A table is
the only list of its names; experiment sections, commands and reports use it.
"""

import difflib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fedsi.errors import UserError

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Table(Generic[Entry]):
    """Names, and the modules that hold their entries.

    ``table["name"]`` imports the module of that name and returns its entry.
    """

    key: str
    """The option that chooses an entry, such as ``privacy.mechanism`` or ``--engine``."""
    kind: type[Entry]
    """The class of every entry."""
    attribute: str
    """Name of the entry in its module."""
    modules: dict[str, str]
    """The module of each name."""

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __contains__(self, name: object) -> bool:
        return name in self.modules

    def __getitem__(self, name: str) -> Entry:
        entry: Any = getattr(
            importlib.import_module(self.modules[self.known(name)]), self.attribute
        )
        if not isinstance(entry, self.kind):
            raise TypeError(f"{self.modules[name]}.{self.attribute} is no {self.kind.__name__}")
        return entry

    def known(self, name: str, besides: Sequence[str] = ()) -> str:
        """Return a name if the table has it.

        Args:
            name: The name given by the user.
            besides: Other names that are allowed.

        Raises:
            UserError: The table has no such name; gives the nearest name and all names.
        """
        return known_name(self.key, [*besides, *self.modules], name)


def known_name(key: str, names: Sequence[str], name: str) -> str:
    """Return a name if it is one of those known.

    Raises:
        UserError: It is not; the nearest name and all names.
    """
    if name in names:
        return name
    near = difflib.get_close_matches(name.lower(), names, n=1)
    meant = f" did you mean {near[0]}?" if near else ""
    raise UserError(f"{key} = {name!r} is not allowed:{meant} expected one of {', '.join(names)}")


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
