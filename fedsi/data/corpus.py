"""What every corpus reader yields: one row of text of one client."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fedsi.data.left_out import LeftOut


class Row(NamedTuple):
    """One example of one client. Rows with the same client's id are one client's, in any order."""

    client: str
    group: str
    """Clients of a group can be held out together; the client itself where there are no groups."""
    text: str
    split: str = ""
    """The corpus's own split that the row belongs to; empty where there are none."""
    label: str = ""
    """What a re-partitioning may go by; empty where there is nothing."""


@dataclass(frozen=True)
class Corpus:
    """A corpus that can be read.

    Args:
        name: What to call it in results.
        sha256: Hash of its content.
        rows: Opens it and yields its rows; may raise ``UserError`` for bad content.
        left_out: What the latest reading left out.
    """

    name: str
    sha256: str
    rows: Callable[[], Iterator[Row]]
    left_out: LeftOut = field(default_factory=LeftOut)


Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, steps done, steps in all if known)."""


def silent(_what: str, _done: int, _total: int | None) -> None:
    """Report nothing."""
