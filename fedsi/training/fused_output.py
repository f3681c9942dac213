"""The output layer with its loss, its gradient and its update, in slices of the vocabulary.

The logits of all words are far larger than what a processor's cache holds, and the three matrix
products of this layer run at half speed on them. A slice of the vocabulary at a time fits. The
softmax of a slice is normalised within the slice first and rescaled when all are known.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsi.training.workspace import Workspace

SLICE = 1 << 18
"""Logits computed at a time, about a megabyte of them."""


@dataclass(frozen=True)
class Update:
    """How a gradient reaches its parameter: ``parameter <- keep * parameter + rate * gradient``."""

    keep: float
    rate: float

    def product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Apply the gradient ``left @ right``."""
        parameter.addmm_(left, right, beta=self.keep, alpha=self.rate)

    def total(self, parameter: Tensor, rows: Tensor) -> None:
        """Apply the gradient that is the sum of some rows."""
        if self.keep != 1.0:
            parameter.mul_(self.keep)
        parameter.add_(rows.sum(0), alpha=self.rate)


def train_output(
    states: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    into: tuple[Tensor, Tensor],
    update: Update,
    space: Workspace,
) -> tuple[float, Tensor]:
    """Compute the cross-entropy of all positions, its gradient, and update the layer.

    Args:
        states: ``[positions, features]``.
        weight: ``[features, vocabulary]``.
        bias: ``[vocabulary]``.
        targets: Token ids, ``[positions]``.
        into: What is updated: the weight and the bias themselves, or gradients of their shapes.
        update: How.
        space: Scratch memory.

    Returns:
        The sum of the losses in nats, and its gradient with respect to the states,
        ``[positions, features]``.
    """
    positions, vocabulary = len(states), len(bias)
    width = max(1, SLICE // positions)
    spans = [(a, min(a + width, vocabulary)) for a in range(0, vocabulary, width)]
    slices = _slices(space.take("probabilities", positions * vocabulary), positions, spans)
    normalisers = torch.empty(len(spans), positions, dtype=states.dtype)
    for (a, b), probabilities, normaliser in zip(spans, slices, normalisers, strict=True):
        logits = space.take("logits", positions, b - a)
        torch.addmm(bias[a:b], states, weight[:, a:b], out=logits)
        largest = torch.amax(logits, 1)
        torch.softmax(logits, 1, out=probabilities)
        # The largest probability of a softmax is never tiny, so this log is safe.
        torch.sub(largest, probabilities.amax(1).log_(), out=normaliser)
    total = torch.logsumexp(normalisers, 0)
    at_targets = (states.t() * weight.index_select(1, targets)).sum(0) + bias[targets]
    loss = float((total - at_targets).sum())
    shares = torch.exp(normalisers - total).unsqueeze(-1)
    grad = space.zeros("grad_states", *states.shape)
    hits = _targets_by_slice(targets, spans)
    for (a, b), probabilities, share, (rows, columns) in zip(
        spans, slices, shares, hits, strict=True
    ):
        probabilities.mul_(share)
        probabilities[rows, columns] -= 1.0
        grad.addmm_(probabilities, weight[:, a:b].t())
        update.product(into[0][:, a:b], states.t(), probabilities)
        update.total(into[1][a:b], probabilities)
    return loss, grad


def _slices(flat: Tensor, positions: int, spans: list[tuple[int, int]]) -> list[Tensor]:
    """Lay out a contiguous ``[positions, width]`` for each span."""
    return [flat[positions * a : positions * b].view(positions, b - a) for a, b in spans]


def _targets_by_slice(
    targets: Tensor, spans: list[tuple[int, int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the positions whose targets are in each span, and where in the span."""
    ordered, positions = targets.sort()
    ends = torch.searchsorted(ordered, torch.tensor([b for _, b in spans])).tolist()
    first = 0
    for (a, _), end in zip(spans, ends, strict=True):
        yield positions[first:end], ordered[first:end] - a
        first = end
