"""The forward and backward pass of CIFG and SI-CIFG over packed batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.embedding import look_up, train_embedding
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import (
    OutputGradient,
    OutputUpdate,
    UpdateRule,
    output_gradients,
    output_parameters,
)
from fedsi.kernels.cpu.packing import (
    JoinedBatch,
    JoinedPart,
    PackedBatch,
    pack_batch,
    pack_together,
)
from fedsi.kernels.cpu.ranks import ranked_batches
from fedsi.kernels.cpu.recurrent_layer import ForwardPass, run_backward, run_forward
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.parameters import Parameters
from fedsi.models.recurrent import Recurrent
from fedsi.tasks.task import Batch, RankedTargets


@dataclass(frozen=True)
class RecurrentGradient:
    """The gradient of one batch's summed losses, as factors of matrix products."""

    settings: ModelSettings
    output: OutputGradient
    part: JoinedPart
    vectors: Tensor
    """The word vectors, ``[positions, embedding]``."""
    scale: Tensor | None
    """The factors that normalised them."""
    grad_vectors: Tensor
    """Gradient with respect to them."""
    before: Tensor
    """The states before the positions from the second time step on, ``[later positions,
    state]``."""
    grad_gates: Tensor
    """Gradient with respect to the gates, ``[positions, 3 hidden]``."""
    projected: tuple[Tensor, Tensor] | None
    """What is projected and the gradient of the result; None without a projection."""

    @property
    def loss(self) -> float:
        """Sum of the losses in nats."""
        return self.output.loss

    def apply(self, into: Parameters, update: UpdateRule) -> None:
        """Apply it to parameters, or to gradients of their shapes; only once."""
        settings = self.settings
        self.output.apply(OutputUpdate(*output_parameters(settings, into), update))
        if self.projected is not None:
            inner, grad = self.projected
            update.product(into["projection.weight"], inner.t(), grad)
            if not settings.recurrent_projection:
                update.total(into["projection.bias"], grad)
        update.product(into["cell.kernel"], self.vectors.t(), self.grad_gates)
        update.total(into["cell.bias"], self.grad_gates)
        later = self.grad_gates[self.part.sequences :]
        update.product(into["cell.recurrent"], self.before.t(), later)
        looked_up = self.vectors, self.scale
        train_embedding(settings, into, self.part.inputs, looked_up, self.grad_vectors, update)


class RecurrentPass:
    """Computes gradients in one forward and one backward pass.

    Args:
        model: The model.
        named: Its parameters.
    """

    def __init__(self, model: Recurrent, named: Parameters) -> None:
        self._settings = model.settings
        self._named = named
        self._space = Workspace(named["embedding"].dtype)

    @staticmethod
    def multiplications(model: Recurrent, batch: Batch) -> int:
        """Return the number of multiplications in a forward pass.

        It is ``P E 3H + (P - S) H 3H + P H E (the projection) + P F V`` for P positions, S
        sentences, embedding size E, hidden size H, V words and F features of the output layer (E
        with a projection, else H). The initial state of a sentence is zero, so nothing is
        multiplied with it.
        """
        packed = pack_batch(batch)
        positions, first = len(packed.asked.targets), int(packed.sizes[0])
        embedding, hidden = model.settings.embedding_size, model.settings.hidden_size
        features = embedding if model.settings.projection else hidden
        products = 3 * hidden * (positions * embedding + (positions - first) * hidden)
        products += positions * features * model.vocabulary_size
        if model.settings.projection:
            products += positions * hidden * embedding
        return products

    def run(self, batch: Batch, into: Parameters, update: UpdateRule) -> float:
        """Run forwards and backwards, apply gradients to ``into``, return the summed losses."""
        at_once = OutputUpdate(*output_parameters(self._settings, into), update)
        (gradient,) = self.together([batch], update.products, at_once)
        gradient.apply(into, update)
        return gradient.loss

    def together(
        self, batches: Sequence[Batch], products: Products, at_once: OutputUpdate | None = None
    ) -> list[RecurrentGradient]:
        """Return the gradient of each batch's summed losses, all computed in one pass.

        Each has the bits that it has alone, because joined operations compute each row in an order
        that does not depend on the other rows. The gradients are valid until the next call.

        Args:
            batches: Batches with at least one target each.
            products: Matrix products in the precision of the step.
            at_once: The output layer's update, if there is one batch and its gradient is applied
                next; the layer is then updated here.
        """
        named, space, settings = self._named, self._space, self._settings
        joined = pack_together(batches)
        packed, kernels = joined.packed, (*self._matrices, products, space)
        vectors, scale = look_up(settings, named, packed.inputs, space)
        trace = self._forward(packed, vectors, products)
        outputs, grad, projected = self._heads(joined, trace.state, products, at_once)
        grad_gates = run_backward(settings.architecture, packed, trace, grad, *kernels)
        grad_vectors = space.take("grad_vectors", *vectors.shape)
        products.inner(grad_vectors, grad_gates, named["cell.kernel"])
        if settings.recurrent_projection:
            projected = _by_batch(joined, trace.hidden), _by_batch(joined, grad)
        rows = [_by_batch(joined, rows) for rows in (vectors, grad_vectors, grad_gates)]
        scales = None if scale is None else _by_batch(joined, scale)
        before = trace.state.index_select(0, joined.before)
        return [
            RecurrentGradient(
                settings=settings,
                output=output,
                part=part,
                vectors=_only(joined, rows[0], part.rows),
                scale=None if scales is None else _only(joined, scales, part.rows),
                grad_vectors=_only(joined, rows[1], part.rows),
                before=_only(joined, before, part.later),
                grad_gates=_only(joined, rows[2], part.rows),
                projected=projected
                and (
                    _only(joined, projected[0], part.rows),
                    _only(joined, projected[1], part.rows),
                ),
            )
            for output, part in zip(outputs, joined.parts, strict=True)
        ]

    def ranked(self, batches: Sequence[Batch], products: Products) -> list[RankedTargets]:
        """Return the targets of each batch with their losses and ranks, computed in one pass.

        Each has the bits that it has alone. The arguments are those of ``together``.
        """
        settings, space = self._settings, self._space
        joined = pack_together(batches)
        vectors, _ = look_up(settings, self._named, joined.packed.inputs, space)
        trace = self._forward(joined.packed, vectors, products)
        features = self._features(_by_batch(joined, trace.state), products)
        layer = output_parameters(settings, self._named)
        return ranked_batches(layer, features, joined.asked, products, space)

    @property
    def _matrices(self) -> tuple[Tensor, Tensor | None]:
        """The recurrent matrix and the recurrent projection, if there is one."""
        projects = self._settings.recurrent_projection
        projection = self._named["projection.weight"] if projects else None
        return self._named["cell.recurrent"], projection

    def _forward(self, packed: PackedBatch, vectors: Tensor, products: Products) -> ForwardPass:
        """Run the recurrence on word vectors, ``[positions, embedding]``."""
        named, space = self._named, self._space
        gates = space.take("gates", len(vectors), named["cell.recurrent"].shape[1])
        gates.copy_(named["cell.bias"])
        products.update(gates, vectors, named["cell.kernel"], keep=1.0)
        kernels = *self._matrices, products, space
        return run_forward(self._settings.architecture, packed, gates, *kernels)

    def _features(self, states: Tensor, products: Products) -> Tensor:
        """Return what the output layer reads, ``[positions, features]``: states or projections."""
        if not self._settings.projection or self._settings.recurrent_projection:
            return states
        weight = self._named["projection.weight"]
        features = self._space.take("features", len(states), weight.shape[1])
        features.copy_(self._named["projection.bias"])
        products.update(features, states, weight, keep=1.0)
        return features

    def _heads(
        self, joined: JoinedBatch, state: Tensor, products: Products, at_once: OutputUpdate | None
    ) -> tuple[list[OutputGradient], Tensor, tuple[Tensor, Tensor] | None]:
        """Run projection and output layer forwards and backwards.

        Returns:
            Each batch's output layer; the gradient with respect to the state; and the states and
            the gradient with respect to their projection, both ordered by batch, or None without
            such a projection.
        """
        states = _by_batch(joined, state)
        features = self._features(states, products)
        layer = output_parameters(self._settings, self._named)
        outputs, grad = output_gradients(
            layer, features, joined.asked, products, self._space, at_once
        )
        if features is states:
            return outputs, _unordered(joined, grad), None
        grad_states = self._space.take("grad_states", *states.shape)
        products.inner(grad_states, grad, self._named["projection.weight"])
        return outputs, _unordered(joined, grad_states), (states, grad)


def _by_batch(joined: JoinedBatch, rows: Tensor) -> Tensor:
    """Return rows of positions, ordered by batch."""
    return rows if joined.by_batch is None else rows.index_select(0, joined.by_batch)


def _only(joined: JoinedBatch, rows: Tensor, some: slice) -> Tensor:
    """Return some rows of positions ordered by batch; all of a single batch, without a view."""
    return rows if joined.by_batch is None else rows[some]


def _unordered(joined: JoinedBatch, rows: Tensor) -> Tensor:
    """Return rows that are ordered by batch in the order of the joined batch."""
    if joined.by_batch is None:
        return rows
    return torch.empty_like(rows).index_copy_(0, joined.by_batch, rows)
