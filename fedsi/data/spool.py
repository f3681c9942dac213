"""A spool of encoded rows on disk, written in order of arrival and read back by client.

A corpus names its clients in any order and may not fit in memory. Rows are appended to flat files.
Once the client of each row is known, they are read back a few million tokens at a time.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

ROWS_AT_A_TIME = 4_000_000
TOKENS_AT_A_TIME = 4_000_000
"""Limits of what is held in memory, unless a single client has more."""

Ints = NDArray[np.int64]

_COLUMNS = {"tokens": np.int32, "lengths": np.int32, "entries": np.int32, "labels": np.int32}


@dataclass(frozen=True)
class Chunk:
    """Rows of some clients, client by client; each client is complete."""

    clients: Ints
    """Client of each row, ascending, ``[rows]``."""
    lengths: Ints
    """Number of tokens of each row, ``[rows]``."""
    tokens: NDArray[np.int32]
    """Tokens of all rows, concatenated, ``[tokens]``."""


class Spool:
    """A writer of rows, which ``SpooledRows`` reads back. A context manager.

    Args:
        folder: The folder for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, IO[bytes]] = {
            name: (folder / name).open("wb", buffering=1 << 20) for name in _COLUMNS
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        with ExitStack() as stack:  # each of them may fail if the disk is full
            for file in self._files.values():
                stack.callback(file.close)

    def append(
        self, ids: Sequence[Sequence[int]], entries: Sequence[int], labels: Sequence[int]
    ) -> None:
        """Add rows: the ids, the entry and the label of each."""
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        tokens = np.fromiter((i for row in ids for i in row), np.int32, int(lengths.sum()))
        columns = {"tokens": tokens, "lengths": lengths, "entries": entries, "labels": labels}
        for name, values in columns.items():
            self._files[name].write(np.asarray(values, dtype=_COLUMNS[name]).tobytes())


@dataclass(frozen=True)
class SpooledRows:
    """All rows of a corpus in order of arrival, memory-mapped."""

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    entries: NDArray[np.int32]
    labels: NDArray[np.int32]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Open the files of a ``Spool``."""
        return cls(**{name: _mapped(folder / name, dtype) for name, dtype in _COLUMNS.items()})

    def by_client(self, clients: NDArray[np.int32], number: int) -> Iterator[Chunk]:
        """Yield all rows client by client; a client's rows keep their order.

        Args:
            clients: The client of each row; rows with -1 are left out, ``[rows]``.
            number: Number of clients.
        """
        rows = _counts(clients, number)
        for first, last in _ranges(rows, ROWS_AT_A_TIME):
            found = [
                start + np.flatnonzero((part >= first) & (part < last))
                for start, part in _parts(clients)
            ]
            places = np.concatenate(found)
            places = places[np.argsort(clients[places], kind="stable")]
            yield from self._chunks(clients[places].astype(np.int64), places)

    def _chunks(self, clients: Ints, places: Ints) -> Iterator[Chunk]:
        lengths = self.lengths[places].astype(np.int64)
        starts = self._starts(places)
        borders = np.flatnonzero(np.diff(clients, prepend=-1))
        sizes = np.add.reduceat(lengths, borders)
        edges = np.append(borders, len(clients))
        for first, last in _ranges(sizes, TOKENS_AT_A_TIME):
            rows = slice(edges[first], edges[last])
            moves = starts[rows] - (np.cumsum(lengths[rows]) - lengths[rows])
            index = np.repeat(moves, lengths[rows]) + np.arange(lengths[rows].sum())
            yield Chunk(clients[rows], lengths[rows], np.asarray(self.tokens[index]))

    def _starts(self, places: Ints) -> Ints:
        """Return where the tokens of some rows begin, without an array as long as the corpus."""
        starts = np.empty(len(places), dtype=np.int64)
        order = np.argsort(places, kind="stable")
        ascending, before = places[order], 0
        for start, part in _parts(self.lengths):
            ends = np.cumsum(part, dtype=np.int64)
            first, last = np.searchsorted(ascending, (start, start + len(part)))
            mine = ascending[first:last] - start
            starts[order[first:last]] = before + ends[mine] - part[mine]
            before += int(ends[-1])
        return starts


def pieces(chunk: Chunk, length: int) -> Chunk:
    """Split rows longer than ``length`` into rows of that length and a shorter last one."""
    counts = -(-chunk.lengths // length)
    lengths = np.full(counts.sum(), length, dtype=np.int64)
    lengths[np.cumsum(counts) - 1] = chunk.lengths - (counts - 1) * length
    return Chunk(np.repeat(chunk.clients, counts), lengths, chunk.tokens)


def _mapped(path: Path, dtype: Any) -> NDArray[Any]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _parts(column: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    for start in range(0, len(column), ROWS_AT_A_TIME):
        yield start, np.asarray(column[start : start + ROWS_AT_A_TIME])


def _counts(keys: NDArray[np.int32], number: int) -> Ints:
    counts = np.zeros(number, dtype=np.int64)
    for _, part in _parts(keys):
        counts += np.bincount(part[part >= 0], minlength=number)
    return counts


def _ranges(sizes: Ints, most: int) -> Iterator[tuple[int, int]]:
    """Split a sequence into runs with a total size of at most ``most``, or of one item."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        before = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, last
        first = last
