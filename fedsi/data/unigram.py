"""The unigram model, the baseline that a language model has to beat."""

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import EOS, PAD, Tokens, inputs_and_targets

Counts = NDArray[np.int64]


def target_counts(examples: Tokens, vocabulary_size: int) -> Counts:
    """Count each token id as a target: ``[vocabulary]``.

    Args:
        examples: ``[examples, sequence_length + 1]``.
        vocabulary_size: Number of token ids.
    """
    _, targets = inputs_and_targets(examples)
    return np.bincount(targets[targets != PAD], minlength=vocabulary_size)


def unigram_log_probabilities(counts: Counts) -> NDArray[np.float64]:
    """Fit a unigram model to target tokens (words, ``oov`` and ``eos``), with add-one smoothing.

    Args:
        counts: Count of each id as a target, ``[vocabulary]``.

    Returns:
        Log probability of each id, ``[vocabulary]``; minus infinity for ids that are never targets
        (``pad``, ``bos``).
    """
    smoothed = counts + 1.0
    smoothed[:EOS] = 0.0
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(smoothed / smoothed.sum()))


def unigram_loss(log_probabilities: NDArray[np.float64], counts: Counts) -> float:
    """Return the mean negative log probability of some targets, in nats per token."""
    return float(-(log_probabilities[EOS:] @ counts[EOS:]) / counts.sum())
