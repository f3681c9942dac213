"""Numbering of words in bounded memory, before the vocabulary is known.

The words of a large corpus do not fit in memory: most of them are typing errors that occur once. So
words are numbered in order of appearance. A full table is sorted, written to disk and emptied. A
word may then get several numbers; merging the sorted tables finds which are the same word.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsi.data.words import Splitting, split_words

MOST_WORDS = 1_000_000
"""Most words in memory at a time."""


class WordIds:
    """Numbers words.

    Args:
        folder: Folder for full tables.
        splitting: The rule that splits a text into words.
        most_words: Most words in memory at a time.
    """

    def __init__(self, folder: Path, splitting: Splitting, most_words: int = MOST_WORDS) -> None:
        self._folder = folder
        self._splitting: Splitting = splitting
        self._most_words = most_words
        self._next = count()
        self._table: defaultdict[str, int] = defaultdict(self._next.__next__)
        self._written: list[Path] = []

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the number of each word of each text."""
        if len(self._table) > self._most_words:
            self._write_table()
        number = self._table.__getitem__
        return [list(map(number, split_words(text, self._splitting))) for text in texts]

    def same_words(self) -> NDArray[np.int32]:
        """Map each number given so far to its word's rank in alphabetical order: ``[numbers]``."""
        self._write_table()
        ranks = np.zeros(next(self._next), dtype=np.int32)
        for rank, (_, entries) in enumerate(self._merged()):
            for _, number in entries:
                ranks[number] = rank
        return ranks

    def words(self, ranks: Sequence[int]) -> list[str]:
        """Return the words of some ranks of ``same_words``, in the order of the ranks."""
        wanted = frozenset(ranks)
        found = {rank: word for rank, (word, _) in enumerate(self._merged()) if rank in wanted}
        return [found[rank] for rank in ranks]

    def ranks(self, words: Sequence[str]) -> list[int | None]:
        """Return the ranks of some words, None for words that never occurred."""
        wanted = frozenset(words)
        found = {word: rank for rank, (word, _) in enumerate(self._merged()) if word in wanted}
        return [found.get(word) for word in words]

    def _write_table(self) -> None:
        path = self._folder / f"words-{len(self._written)}"
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{word}\t{self._table[word]}\n" for word in sorted(self._table))
        self._written.append(path)
        self._table.clear()

    def _merged(self) -> Iterator[tuple[str, Iterator[tuple[str, int]]]]:
        tables = [_read_table(path) for path in self._written]
        yield from groupby(heapq.merge(*tables), key=itemgetter(0))


def _read_table(path: Path) -> Iterator[tuple[str, int]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            word, _, number = line.rpartition("\t")
            yield word, int(number)
