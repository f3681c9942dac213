"""A generated file like TensorFlow Federated's Stack Overflow, of any size.

Sentences per client are log-normal, words follow Zipf's law with a tail of millions of rare ones,
and the rows of neighbouring clients are mixed.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.data.corpus import Progress

WORDS = 3_000_000
MEAN_LENGTH = 12
SIZES_SIGMA = 1.3
MIXED_ROWS = 10_000
"""Rows that may be interleaved."""

_LETTERS = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype="S1")
_ROWS_AT_A_TIME = 100_000
_OTHER_FEATURES = {b"score": b"1", b"tags": b"python", b"title": b"how do i", b"type": b"answer"}

Ints = NDArray[np.int64]


def write_stack_overflow(
    path: Path, clients: int, sentences: int, seed: int, progress: Progress
) -> int:
    """Write an SQLite file.

    Args:
        path: The file, which must not exist.
        clients: Number of clients.
        sentences: Number of sentences of all clients together, at least one for each.
        seed: The seed.
        progress: Called with the number of sentences written.

    Returns:
        The number of words in all sentences.
    """
    rng = np.random.default_rng(seed)
    owners = _owners(rng, clients, sentences)
    words, total = _words(WORDS), 0
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)"
        )
        connection.execute(
            "CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)"
        )
        connection.executemany(
            "INSERT INTO client_metadata VALUES (?, 'train', ?)",
            ((f"{k:08}", n) for k, n in enumerate(np.bincount(owners).tolist())),
        )
        for first in range(0, sentences, _ROWS_AT_A_TIME):
            mine = owners[first : first + _ROWS_AT_A_TIME].tolist()
            lengths = rng.geometric(1 / MEAN_LENGTH, len(mine))
            rows = zip(mine, _sentences(rng, words, lengths), strict=True)
            connection.executemany(
                "INSERT INTO examples VALUES ('train', ?, ?)",
                ((f"{client:08}", tf_example(text)) for client, text in rows),
            )
            total += int(lengths.sum())
            progress("writing sentences", first + len(mine), sentences)
    return total


def tf_example(tokens: str) -> bytes:
    """Serialise a ``tf.train.Example`` of bytes features, as TensorFlow does."""
    features = {**_OTHER_FEATURES, b"tokens": tokens.encode()}
    entries = (
        _field(1, _field(1, name) + _field(2, _field(1, _field(1, value))))
        for name, value in features.items()
    )
    return _field(1, b"".join(entries))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _owners(rng: np.random.Generator, clients: int, sentences: int) -> Ints:
    """Return the client of each row: ``[sentences]``."""
    weights = rng.lognormal(0.0, SIZES_SIGMA, clients)
    sizes = 1 + rng.multinomial(sentences - clients, weights / weights.sum())
    owners = np.repeat(np.arange(clients), sizes)
    return owners[np.argsort(np.arange(sentences) + rng.uniform(0, MIXED_ROWS, sentences))]


def _words(number: int) -> list[str]:
    """Return different words of five letters; the first ones have frequent letters."""
    ranks = np.arange(number)[:, None] // len(_LETTERS) ** np.arange(5) % len(_LETTERS)
    return [word.decode() for word in _LETTERS[ranks].view("S5").ravel().tolist()]


def _sentences(rng: np.random.Generator, words: list[str], lengths: Ints) -> Iterator[str]:
    # exp of a uniform number has the density 1/x, which is Zipf's law.
    ranks = np.exp(rng.uniform(0, np.log(len(words)), int(lengths.sum()))).astype(int)
    flat = [words[rank] for rank in ranks.tolist()]
    for start, end in pairwise(np.append(0, np.cumsum(lengths)).tolist()):
        yield " ".join(flat[start:end])
