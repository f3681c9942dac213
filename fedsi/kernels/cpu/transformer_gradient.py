"""The gradient of a Transformer for one of several batches, as factors of matrix products."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.embedding import train_embedding
from fedsi.kernels.cpu.output import OutputGradient, OutputUpdate, UpdateRule, output_parameters
from fedsi.kernels.cpu.packing import Asked, PackedSentences
from fedsi.kernels.cpu.positions import PositionTrace, train_positions
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.parameters import Parameters


@dataclass(frozen=True)
class JoinedSentences:
    """Several batches packed as one, batch after batch."""

    packed: PackedSentences
    parts: list[PackedSentences]
    """The batches, packed alone."""
    positions: list[PositionTrace]
    """The effects of the position encoding on each batch."""
    ends: NDArray[np.int64]
    """One past the last position of each batch, ``[batches]``."""

    @cached_property
    def spans(self) -> list[slice]:
        """The positions of each batch."""
        return [slice(a, b) for a, b in pairwise([0, *self.ends.tolist()])]

    @property
    def asked(self) -> list[tuple[slice, Asked]]:
        """The positions and the targets of each batch."""
        return [(span, part.asked) for part, span, _ in self]

    def __getitem__(self, number: int) -> tuple[PackedSentences, slice, PositionTrace]:
        """Return a batch, its positions, and the effects of the encoding on it."""
        return self.parts[number], self.spans[number], self.positions[number]

    def __iter__(self) -> Iterator[tuple[PackedSentences, slice, PositionTrace]]:
        return zip(self.parts, self.spans, self.positions, strict=True)


@dataclass(frozen=True)
class Factors:
    """The gradients of the blocks' parameters for all batches of a pass."""

    joined: JoinedSentences
    products: list[tuple[str, Tensor, Tensor]]
    """A parameter and the factors of its gradient: for each batch, ``left.T @ right`` over its
    positions."""
    vectors: list[tuple[str, Tensor]]
    """A parameter and its gradient for each batch, ``[batches, size]``."""

    def product(self, name: str, left: Tensor, right: Tensor) -> None:
        """Note the factors of a parameter's gradient."""
        self.products.append((name, left, right))


@dataclass(frozen=True)
class TransformerGradient:
    """The gradient of one batch's summed losses, as factors of matrix products."""

    settings: ModelSettings
    output: OutputGradient
    factors: Factors
    number: int
    """Which of the joined batches it is of."""
    looked_up: tuple[Tensor, Tensor | None]
    """The word vectors of all batches and the factors that normalised them."""
    grad_vectors: Tensor
    """Gradient with respect to them, ``[positions, size]``."""
    grad_bias: Tensor
    """Gradient with respect to the bias of a single batch, ``[heads, longest, longest]``."""
    space: Workspace
    """Scratch memory."""

    @property
    def loss(self) -> float:
        """Sum of the losses in nats."""
        return self.output.loss

    def apply(self, into: Parameters, update: UpdateRule) -> None:
        """Apply it to parameters, or to gradients of their shapes; only once."""
        settings, joined = self.settings, self.factors.joined
        part, span, positions = joined[self.number]
        self.output.apply(OutputUpdate(*output_parameters(settings, into), update))
        for name, left, right in self.factors.products:
            update.product(into[name], left[span].t(), right[span])
        for name, gradients in self.factors.vectors:
            update.whole(into[name], gradients[self.number])
        grad, grad_added = self.grad_vectors[span], None
        if positions.added is not None:
            grad_added = self.space.zeros("grad_added", part.longest, settings.embedding_size)
            grad_added.index_add_(0, part.places, grad)
        train_positions(positions, grad_added, self.grad_bias, into, update)
        vectors, scale = self.looked_up
        looked_up = vectors[span], None if scale is None else scale[span]
        train_embedding(settings, into, part.inputs, looked_up, grad, update)
