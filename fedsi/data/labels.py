"""Labels with texts, and examples that have right ones among them.

A labelled example is a text, the query, with one or several right labels, its *answer*. Queries
with the same right labels share an answer. In a row of a labelled population the last token is no
word: it is the number of the answer, from 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import PAD, Tokens, lengths_of, pad_examples

Answers = NDArray[np.int64]
"""The right labels of each answer, padded with -1 at the ends: ``[answers, most labels]``."""


@dataclass(frozen=True)
class LabelSet:
    """The labels of a population, in the order of their numbers."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    """What a model reads of each label."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class LabelTokens:
    """The labels that a model ranks."""

    most: int
    """Rows of a table with one row a label; the labels may be fewer."""
    tokens: Tokens | None = None
    """Their texts, ``[labels, time]``, padded at the ends; None where nothing is ranked, as on a
    server."""


def with_answers(rows: Tokens, answers: NDArray[np.int32]) -> Tokens:
    """Replace the last token of each row, an end or the last word of a full row, by its answer.

    Args:
        rows: Rows of the protocol, ``[rows, time]``; changed in place.
        answers: Numbers of the answers, from 1, ``[rows]``.
    """
    rows[np.arange(len(rows)), lengths_of(rows) - 1] = answers
    return rows


def text_tokens(texts: Sequence[Sequence[int]], sequence_length: int) -> Tokens:
    """Return the rows of some texts as a model reads queries: ``bos`` and their words.

    Args:
        texts: Token ids of each text.
        sequence_length: Words of a full sequence; a text has at most one less.

    Returns:
        ``[texts, time]``, padded at the ends.
    """
    cut = [list(ids[: sequence_length - 1]) for ids in texts]
    longest = max(map(len, cut), default=0)
    starts = np.append(0, np.cumsum([len(ids) for ids in cut])).astype(np.int64)
    joined = np.array([token for ids in cut for token in ids], np.int32)
    rows = pad_examples(joined, starts, longest + 1)
    return with_answers(rows, np.full(len(rows), PAD, np.int32))[:, :-1]


def answers_of(keys: Sequence[str]) -> Answers:
    """Return the labels of answers that are written as ``answer_key`` does."""
    labels = [[int(number) for number in key.split()] for key in keys]
    found = np.full((len(labels), max(map(len, labels), default=1)), -1, np.int64)
    for row, numbers in zip(found, labels, strict=True):
        row[: len(numbers)] = numbers
    return found


def answer_key(labels: Sequence[int]) -> str:
    """Write a set of labels' numbers as a text, the same for the same set."""
    return " ".join(map(str, sorted(set(labels))))
