"""The unigram model: what a language model has to beat before it has learned anything."""

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import EOS, PAD, Tokens


def unigram_log_probabilities(examples: Tokens, vocabulary_size: int) -> NDArray[np.float64]:
    """Fit a unigram model to target tokens (words, ``oov`` and ``eos``), with add-one smoothing.

    Args:
        examples: ``[examples, sequence_length + 1]``.
        vocabulary_size: Number of token ids.

    Returns:
        Log probability of each id; ids that are never targets (``pad``, ``bos``) have minus
        infinity: ``[vocabulary]``.
    """
    targets = examples[:, 1:]
    counts = np.bincount(targets[targets != PAD], minlength=vocabulary_size) + 1.0
    counts[:EOS] = 0.0
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(counts / counts.sum()))


def unigram_loss(log_probabilities: NDArray[np.float64], examples: Tokens) -> float:
    """Return the mean negative log probability of the targets, in nats per token."""
    targets = examples[:, 1:]
    return float(-log_probabilities[targets[targets != PAD]].mean())
