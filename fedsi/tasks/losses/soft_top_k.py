"""Soft top-k: right labels shall be among the first k, in any order.

A threshold ``-t`` selects k labels softly; with the scores ``s`` of a query, its right labels ``P``
and ``w_p = 1/|P|``::

    sum_n sigmoid(s_n + t) = k,     loss = - sum_{p in P} w_p log sigmoid(s_p + t)

Differentiating the first equation gives ``dt/ds_n = -q_n / sum(q)`` with ``q = p (1 - p)`` and
``p = sigmoid(s + t)``; so the gradient by the scores is ``u - q sum(u) / sum(q)``, with
``u = -w (1 - p)``. Here autograd finds it from one Newton step at the solution, whose slope is a
constant: the step is 0, and its derivative is ``dt/ds``.

Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification" (arXiv 2310.10636),
soft top-k operator.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.tasks.losses.loss import right_scores

STEPS = 60
"""Steps of the search, each of which at least halves the bracket: enough for float64."""


def shift(scores: Tensor, k: int) -> Tensor:
    """Return t with ``sum sigmoid(scores + t) = k``, ``[queries, 1]``, by Newton in a bracket.

    ``sigmoid(s_n + t) <= k/n`` for all n at the lower bound, and ``>= k/n`` at the upper one. A
    Newton step that leaves the bracket is replaced by its middle. The number of steps is fixed, so
    that ``torch.func.vmap`` can run it.

    Args:
        scores: ``[queries, labels]``, with more than k labels.
        k: Number of labels to select.
    """
    equal = math.log(k) - math.log(scores.shape[-1] - k)
    low = equal - scores.amax(-1, keepdim=True)
    high = equal - scores.amin(-1, keepdim=True)
    found = (low + high) / 2
    for _ in range(STEPS):
        chosen = (scores + found).sigmoid()
        beyond = chosen.sum(-1, keepdim=True) - k
        slope = (chosen * (1 - chosen)).sum(-1, keepdim=True)
        low = torch.where(beyond <= 0, found, low)
        high = torch.where(beyond >= 0, found, high)
        newton = found - beyond / slope.clamp_min(torch.finfo(scores.dtype).tiny)
        inside = (newton >= low) & (newton <= high)
        found = torch.where(inside, newton, (low + high) / 2)
    return found


def soft_top_k_loss(scores: Tensor, right: Tensor, _known: Tensor | None, k: int) -> Tensor:
    """Return the loss of each query, ``[queries]``.

    Raises:
        ValueError: There are not more than k labels.
    """
    if scores.shape[-1] <= k:
        raise ValueError(f"task.k = {k} is not less than the {scores.shape[-1]} labels; lower it")
    constant = scores.detach()
    at = shift(constant, k)
    chosen = (constant + at).sigmoid()
    slope = (chosen * (1 - chosen)).sum(-1, keepdim=True)
    step = ((scores + at).sigmoid().sum(-1, keepdim=True) - k) / slope.clamp_min(
        torch.finfo(scores.dtype).tiny
    )
    own, weights = right_scores(scores, right)
    return -(weights * functional.logsigmoid(own + at - step)).sum(-1)


LOSS = soft_top_k_loss
