"""The interface of a loss: scores of all labels, and which of them are right."""

from collections.abc import Callable

import torch
from torch import Tensor

LabelLoss = Callable[[Tensor, Tensor, Tensor | None, int], Tensor]
"""``(scores, right, known, k)`` -> the loss of each query in nats, ``[queries]``.

Scores are ``[queries, labels]``; ``right`` has the numbers of each query's right labels, int64
``[queries, most]``, padded with -1; ``known`` is a mask of the labels that are compared,
``[labels]``, None for all; k is ``task.k``. It must support ``torch.func.vmap``, and queries
without right labels, whose loss does not count.
"""

NEVER = -1e30
"""Score of labels that are left out; finite, so that no gradient becomes NaN."""


def right_scores(scores: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of the right labels, and their weights: 1 over their number, 0 for padding.

    Both are ``[queries, most]``.
    """
    there = (right >= 0).to(scores.dtype)
    weights = there / there.sum(-1, keepdim=True).clamp_min(1)
    return scores.gather(-1, right.clamp_min(0)), weights


def among(scores: Tensor, known: Tensor | None) -> Tensor:
    """Return scores in which labels that are not compared have the score ``NEVER``."""
    return scores if known is None else torch.where(known, scores, NEVER)


def right_mask(scores: Tensor, right: Tensor) -> Tensor:
    """Return which labels are right, boolean ``[queries, labels]``."""
    there = (right >= 0).to(scores.dtype)
    return torch.zeros_like(scores).scatter_add(-1, right.clamp_min(0), there) > 0
