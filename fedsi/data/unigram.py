"""The unigram model: what a language model has to beat before it has learned anything."""

import numpy as np

from fedsi.data.protocol import PAD, Tokens


class UnigramModel:
    """Relative frequencies of target tokens (words, ``oov`` and ``eos``), with add-one smoothing.

    Args:
        vocabulary_size: Number of token ids.
    """

    def __init__(self, vocabulary_size: int) -> None:
        self._counts = np.zeros(vocabulary_size, dtype=np.int64)

    def count(self, examples: Tokens) -> None:
        """Add the targets of ``[examples, sequence_length + 1]`` to the counts."""
        targets = examples[:, 1:]
        self._counts += np.bincount(targets[targets != PAD], minlength=len(self._counts))

    def loss(self, examples: Tokens) -> float:
        """Return the mean negative log probability of the targets, in nats per token."""
        # PAD and BOS are never targets, so the other ids share the smoothing.
        smoothed = self._counts + 1.0
        log_probabilities = np.log(smoothed / smoothed[2:].sum())
        targets = examples[:, 1:]
        return float(-log_probabilities[targets[targets != PAD]].mean())
