"""Rows spooled to disk and read back client after client, against a dictionary."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data import spool
from fedsi.data.spool import Chunk, Spool, SpooledRows

CLIENTS = 5


class SpooledRow(NamedTuple):
    tokens: list[int]
    entry: int
    label: int
    client: int
    """-1 is left out."""


ROWS = st.lists(
    st.builds(
        SpooledRow,
        st.lists(st.integers(0, 2**31 - 1), max_size=5),
        st.integers(0, 9),
        st.integers(0, 3),
        st.integers(-1, CLIENTS - 1),
    ),
    min_size=1,
    max_size=25,
)


def spooled(folder: Path, rows: Sequence[SpooledRow], at_a_time: int) -> SpooledRows:
    with Spool(folder) as writer:
        for first in range(0, len(rows), at_a_time):
            part = rows[first : first + at_a_time]
            writer.append(
                [r.tokens for r in part], [r.entry for r in part], [r.label for r in part]
            )
    return SpooledRows.of(folder)


def rows_in(chunk: Chunk) -> list[tuple[int, list[int]]]:
    """Return a chunk's (client, tokens) pairs."""
    ends = np.cumsum(chunk.lengths)
    assert ends[-1] == len(chunk.tokens)
    texts = [part.tolist() for part in np.split(chunk.tokens, ends[:-1])]
    return list(zip(chunk.clients.tolist(), texts, strict=True))


@given(ROWS, st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))
def test_rows_come_back_client_by_client_as_from_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[SpooledRow],
    at_a_time: int,
    most_rows: int,
    most_tokens: int,
) -> None:
    expected: dict[int, list[list[int]]] = {}
    for row in rows:
        expected.setdefault(row.client, []).append(row.tokens)
    expected.pop(-1, None)

    read = spooled(tmp_path_factory.mktemp("spool"), rows, at_a_time)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "ROWS_AT_A_TIME", most_rows)
        patch.setattr(spool, "TOKENS_AT_A_TIME", most_tokens)
        clients = np.array([row.client for row in rows], dtype=np.int32)
        chunks = list(read.by_client(clients, CLIENTS))

    found: dict[int, list[list[int]]] = {}
    for chunk in chunks:
        present = np.unique(chunk.clients)
        assert not found.keys() & set(present.tolist()), "a client is whole in one chunk"
        # No more than asked for, unless it is one client's.
        assert len(present) == 1 or len(chunk.tokens) <= most_tokens
        assert len(present) == 1 or len(chunk.clients) <= most_rows
        for client, tokens in rows_in(chunk):
            found.setdefault(client, []).append(tokens)
    assert found == expected
    assert list(found) == sorted(expected)
    assert read.labels.tolist() == [row.label for row in rows]
    assert read.entries.tolist() == [row.entry for row in rows]


def test_everybody_left_out_is_nothing(tmp_path: Path) -> None:
    read = spooled(tmp_path, [SpooledRow([1, 2], 0, 0, -1)] * 3, 2)
    clients = np.full(3, -1, dtype=np.int32)
    assert list(read.by_client(clients, CLIENTS)) == []


def test_no_rows_are_empty_columns(tmp_path: Path) -> None:
    read = spooled(tmp_path, [], 1)
    assert (len(read.tokens), len(read.lengths), len(read.entries)) == (0, 0, 0)
