"""The output layer: its loss, gradient and update, computed in slices of the vocabulary.

The logits of all words are far larger than a processor's cache, and the three matrix products of
this layer run at half speed on them. A slice of the vocabulary fits. For each slice, exponentials
are stored relative to the slice's largest logit. The factor that turns them into probabilities is
known only after all slices; it is applied to the small matrices that they are multiplied with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.packing import Asked
from fedsi.kernels.cpu.softmax import exponentiate, subtract_targets
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.parameters import Parameters

SLICE = 1 << 19
"""Logits computed at a time: about two megabytes."""

ALIGNED = 16
"""Multiple of numbers at which memory for a batch starts: a whole vector."""

SMALLEST_FACTOR = 1e-30
"""Lower bound of a slice's factor, which keeps its inverse finite."""


@dataclass(frozen=True)
class UpdateRule:
    """The update rule of a parameter: ``parameter <- keep * parameter + rate * gradient``."""

    products: Products
    keep: float
    rate: float

    def product(self, parameter: Tensor, left: Tensor, right: Tensor) -> None:
        """Apply the gradient ``left @ right``."""
        self.products.update(parameter, left, right, self.keep, self.rate)

    def whole(self, parameter: Tensor, gradient: Tensor) -> None:
        """Apply a gradient."""
        if self.keep != 1.0:
            parameter.mul_(self.keep)
        parameter.add_(gradient, alpha=self.rate)

    def total(self, parameter: Tensor, rows: Tensor) -> None:
        """Apply the gradient that is the sum of some rows."""
        self.whole(parameter, rows.sum(0))

    def weighted_total(self, parameter: Tensor, rows: Tensor, weights: Tensor) -> None:
        """Apply the gradient that is the weighted sum of some rows."""
        parameter.addmv_(rows.t(), weights, beta=self.keep, alpha=self.rate)


@dataclass(frozen=True)
class OutputUpdate:
    """The tensors of an output layer and how they are updated."""

    weight: Tensor
    """``[features, vocabulary]``; for a tied output the transposed embeddings."""
    bias: Tensor
    """``[vocabulary]``."""
    rule: UpdateRule

    def apply(self, a: int, states: Tensor, piece: Tensor, factor: Tensor, scaled: Tensor) -> None:
        """Apply the gradient of the words from ``a`` on.

        Args:
            a: First word.
            states: ``[targets, features]``.
            piece: Gradient with respect to the logits up to the factor, ``[targets, words]``.
            factor: ``[targets]``.
            scaled: Scratch memory of the shape of the states.
        """
        b = a + piece.shape[1]
        torch.mul(states, factor.unsqueeze(-1), out=scaled)
        _apply(self.rule, self.weight[:, a:b], scaled, piece)
        self.rule.weighted_total(self.bias[a:b], piece, factor)


@dataclass(frozen=True)
class OutputGradient:
    """The gradient of the output layer's parameters, as factors of matrix products."""

    loss: float
    """Sum of the losses in nats."""
    states: Tensor
    """The states at the positions with targets, ``[targets, features]``."""
    pieces: list[Tensor]
    """The gradient with respect to the logits up to the factors, ``[targets, words]`` for each
    slice; no slices if the gradient was applied at once."""
    factors: Tensor
    """``[slices, targets]``."""
    space: Workspace
    """Scratch memory."""

    def apply(self, update: OutputUpdate) -> None:
        """Update the layer; only once."""
        scaled = self.space.take("partial", *self.states.shape)
        a = 0
        for piece, factor in zip(self.pieces, self.factors, strict=True):
            update.apply(a, self.states, piece, factor, scaled)
            a += piece.shape[1]


def output_parameters(settings: ModelSettings, named: Parameters) -> tuple[Tensor, Tensor]:
    """Return the output layer's weight, ``[features, vocabulary]``, tied or not, and its bias."""
    weight = named["embedding"].t() if settings.tied_output else named["output.weight"]
    return weight, named["output.bias"]


def output_gradients(
    layer: tuple[Tensor, Tensor],
    features: Tensor,
    parts: Sequence[tuple[slice, Asked]],
    products: Products,
    space: Workspace,
    at_once: OutputUpdate | None,
) -> tuple[list[OutputGradient], Tensor]:
    """Run the output layer of several batches forwards and backwards, batch by batch.

    Args:
        layer: Weight and bias, as ``output_parameters`` returns.
        features: ``[positions, features]``.
        parts: The positions and the targets of each batch.
        products: Matrix products in the precision of the step.
        space: Scratch memory.
        at_once: As in ``output_gradient``, if there is one batch.

    Returns:
        The gradient of each batch, and that with respect to the features.
    """
    grad = space.take("grad_features", *features.shape)
    sizes = [asked.targets.shape[0] * layer[1].shape[0] for _, asked in parts]
    starts = [0, *accumulate(-(-size // ALIGNED) * ALIGNED for size in sizes)]
    room = space.take("exponentials", starts[-1])
    outputs = [
        output_gradient(
            layer, features[rows], asked, products, space, room[a : a + size], grad[rows], at_once
        )
        for (rows, asked), a, size in zip(parts, starts, sizes, strict=False)
    ]
    return outputs, grad


def output_gradient(
    layer: tuple[Tensor, Tensor],
    states: Tensor,
    asked: Asked,
    products: Products,
    space: Workspace,
    room: Tensor,
    grad: Tensor,
    at_once: OutputUpdate | None = None,
) -> OutputGradient:
    """Compute the cross-entropy at the positions with targets and its gradient.

    An update at once is made slice by slice, while the slice's gradient is still in the cache.

    Args:
        layer: Weight and bias, as ``output_parameters`` returns.
        states: ``[positions, features]``.
        asked: The targets of some or all positions.
        products: Matrix products in the precision of the step.
        space: Scratch memory.
        room: Memory for the result's pieces, ``[targets * vocabulary]``.
        grad: Output: gradient with respect to the states, ``[positions, features]``.
        at_once: The update, which may change the layer itself; None to leave it to the caller.
    """
    weight, bias = layer
    some = states if asked.places is None else states[asked.places]
    pieces, largest, sums, at_targets = _exponentials(
        products, some, weight, bias, asked.targets, space, room
    )
    totals = torch.logsumexp(largest + sums.log(), 0)
    factors = torch.exp(largest - totals).clamp_min_(SMALLEST_FACTOR)
    total = grad.zero_() if asked.places is None else space.zeros("grad_asked", *some.shape)
    partial = space.take("partial", *some.shape)
    a = 0
    for piece, factor in zip(pieces, factors, strict=True):
        b = a + piece.shape[1]
        subtract_targets(piece.numpy(), asked.targets.numpy(), a, factor.numpy())
        _back(products, partial, piece, weight[:, a:b])
        total.addcmul_(partial, factor.unsqueeze(-1))
        if at_once is not None:
            at_once.apply(a, some, piece, factor, partial)
        a = b
    if asked.places is not None:
        grad.zero_().index_copy_(0, asked.places, total)
    loss = float((totals - at_targets).sum())
    if at_once is not None:
        pieces, factors = [], factors[:0]
    return OutputGradient(loss, some, pieces, factors, space)


def _exponentials(
    products: Products,
    states: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    space: Workspace,
    room: Tensor,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Run ``exponentiate`` on every slice.

    Returns:
        The exponentials, ``[positions, words]`` for each slice; the largest logits and the sums of
        the exponentials, ``[slices, positions]``; the targets' logits, ``[positions]``.
    """
    positions, vocabulary = states.shape[0], bias.shape[0]
    width = max(1, SLICE // positions)
    starts = range(0, vocabulary, width)
    largest = space.take("largest", len(starts), positions)
    sums = space.take("sums", len(starts), positions)
    at_targets = space.take("at_targets", positions)
    values = []
    for k, a in enumerate(starts):
        b = min(a + width, vocabulary)
        logits = room[positions * a : positions * b].view(positions, b - a)
        forth(products, logits, states, weight[:, a:b])
        exponentiate(
            logits.numpy(),
            bias[a:b].numpy(),
            targets.numpy(),
            a,
            largest[k].numpy(),
            sums[k].numpy(),
            at_targets.numpy(),
        )
        values.append(logits)
    return values, largest, sums, at_targets


def forth(products: Products, logits: Tensor, states: Tensor, weight: Tensor) -> None:
    """Write ``states @ weight`` for either memory layout of the weight."""
    if weight.stride(1) == 1:
        products.update(logits, states, weight)
    else:
        products.inner(logits, states, weight.t())


def _back(products: Products, grad: Tensor, piece: Tensor, weight: Tensor) -> None:
    """Write ``piece @ weight.T``."""
    if weight.stride(1) == 1:
        products.inner(grad, piece, weight)
    else:
        products.update(grad, piece, weight.t())


def _apply(update: UpdateRule, weight: Tensor, states: Tensor, piece: Tensor) -> None:
    """Apply the gradient ``states.T @ piece``."""
    if weight.stride(1) == 1:
        update.product(weight, states.t(), piece)
    else:
        update.product(weight.t(), piece.t(), states)
