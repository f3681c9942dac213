"""Held-out sentences that also occur in the training text."""

import math

import numpy as np
from numpy.typing import NDArray

from fedsi.seeds import splitmix64

MOST_SENTENCES = 4_000_000
"""Sentences whose hashes are kept, 8 bytes each; from larger corpora the same share of both
sides."""

Hashes = NDArray[np.uint64]


class Repeated:
    """Counts held-out sentences that are identical to training sentences.

    A sentence is kept if its hash is divisible by a number that grows with the corpus, so all
    copies of a sentence are kept or none.

    Args:
        sentences: Upper bound of the number of sentences.
    """

    def __init__(self, sentences: int) -> None:
        self._divisor = np.uint64(max(1, math.ceil(sentences / MOST_SENTENCES)))
        self._sides: dict[bool, list[Hashes]] = {True: [], False: []}

    def add(
        self, words: NDArray[np.int32], lengths: NDArray[np.int64], heldout: NDArray[np.bool_]
    ) -> None:
        """Add sentences.

        Args:
            words: Numbers of the words of all sentences, concatenated, ``[words]``.
            lengths: Number of words of each, at least one, ``[sentences]``.
            heldout: Whether each is held out, ``[sentences]``.
        """
        hashes = sentence_hashes(words, lengths)
        kept = hashes % self._divisor == 0
        for side, found in self._sides.items():
            found.append(hashes[kept & (heldout == side)])

    def share(self) -> float:
        """Return the share of held-out sentences that are training sentences; 0 without any."""
        training, heldout = (np.concatenate(self._sides[side]) for side in (False, True))
        return float(np.isin(heldout, training).mean()) if len(heldout) else 0.0


def sentence_hashes(words: NDArray[np.int32], lengths: NDArray[np.int64]) -> Hashes:
    """Return a hash of each sentence: the sum of hashes of its words and their places."""
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(words), dtype=np.int64) - np.repeat(starts, lengths)
    mixed = words.astype(np.uint64) + (places.astype(np.uint64) << np.uint64(32))
    return np.add.reduceat(splitmix64(mixed), starts)
