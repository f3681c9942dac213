"""Tables of what a user may add: a name stands for a module, which holds the entry.

An entry is imported when it is asked for, so that choosing one does not load the others. The names
in a table are the only list of them: sections of an experiment, commands and reports ask it.
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
    """Names and the modules that hold their entries.

    Its items are entries: ``table["name"]`` imports the module of that name.
    """

    key: str
    """What chooses an entry, such as ``privacy.mechanism`` or ``--engine``."""
    kind: type[Entry]
    """Of every entry."""
    attribute: str
    """What an entry is called in its module."""
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
        """Return a name that the table has.

        Args:
            name: What was asked for.
            besides: Names that mean something without being in the table.

        Raises:
            UserError: It has none such; the nearest name and all names.
        """
        names = [*besides, *self.modules]
        if name in names:
            return name
        near = difflib.get_close_matches(name.lower(), names, n=1)
        meant = f" did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{self.key} = {name!r} is not allowed:{meant} expected one of {', '.join(names)}"
        )


def without_effect(key: str, choice: str, chosen: str, owners: Sequence[str]) -> str:
    """Say that a key does nothing for the entry that was chosen.

    Args:
        key: The key that was given.
        choice: The key that chooses the entry.
        chosen: The entry's name.
        owners: Names of the entries that the key works with.
    """
    instead = f"set {choice}={' or '.join(owners)} or leave it out" if owners else "leave it out"
    return f"{key} has no effect with {choice}={chosen}; {instead}"
