"""The interface of a corpus: rows of text, each of one client."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fedsi.data.left_out_rows import LeftOut


class Row(NamedTuple):
    """One example of one client. All rows with the same client id belong to one client."""

    client: str
    group: str
    """The client's group, which can be held out as a whole; the client itself without groups."""
    text: str
    split: str = ""
    """The corpus's own split of the row; empty if it has none."""
    label: str = ""
    """Label used for re-partitioning; empty if there is none."""


@dataclass(frozen=True)
class Corpus:
    """A corpus that can be read.

    Args:
        name: Its name in results.
        sha256: Hash of its content.
        rows: Opens it and yields its rows; may raise ``UserError`` for bad content.
        left_out: Rows left out by the latest reading.
    """

    name: str
    sha256: str
    rows: Callable[[], Iterator[Row]]
    left_out: LeftOut = field(default_factory=LeftOut)


Progress = Callable[[str, int, int | None], None]
"""Called with (activity, steps done, total steps if known)."""


def silent(_what: str, _done: int, _total: int | None) -> None:
    """Report nothing."""
