"""A word-level vocabulary: which words have an id of their own."""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from fedsi.data.protocol import FIRST_WORD, OOV, SPECIAL_TOKENS


class Vocabulary:
    """Words and their ids; the four special tokens come first.

    Args:
        words: The words in order of their ids, without the special tokens.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)

    @classmethod
    def from_counts(cls, counts: Counter[str], size: int) -> "Vocabulary":
        """Take the ``size`` most frequent words; ties in alphabetical order."""
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls(word for word, _ in ranked[:size])

    def __len__(self) -> int:
        return len(SPECIAL_TOKENS) + len(self.words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Return the ids of words; unknown ones become ``OOV``."""
        return [self._ids.get(word, OOV) for word in words]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: FIRST_WORD + rank for rank, word in enumerate(self.words)}
