"""The forward and backward pass of a Transformer over packed sentences, of one batch or several."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedsi.kernels.cpu.attention_loops import attend_backward, attend_forward, turn
from fedsi.kernels.cpu.embedding import look_up
from fedsi.kernels.cpu.layer_norm import normalise, undo_normalise
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import (
    OutputUpdate,
    UpdateRule,
    output_gradients,
    output_parameters,
)
from fedsi.kernels.cpu.packing import join_sentences, pack_sentences
from fedsi.kernels.cpu.positions import trace_positions
from fedsi.kernels.cpu.ranks import ranked_batches
from fedsi.kernels.cpu.tiles import COLUMNS
from fedsi.kernels.cpu.transformer_gradient import Factors, JoinedSentences, TransformerGradient
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.parameters import Parameters
from fedsi.models.transformer import Transformer
from fedsi.tasks.task import Batch, RankedTargets

PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class NormTrace:
    """Results of a layer norm that the backward pass needs."""

    normal: Tensor
    """``[positions, size]``."""
    inverse: Tensor
    """``[positions]``."""
    result: Tensor
    """``normal``, scaled and shifted if it has parameters."""


@dataclass(frozen=True)
class BlockTrace:
    """Results of a block that the backward pass needs."""

    attention_norm: NormTrace
    projected: Tensor
    """Queries, keys and values side by side, after a rotary encoding's rotation: ``[positions, 3
    size]``."""
    weights: Tensor
    """Attention weights, ``[heads, positions, width]``."""
    sums: Tensor
    """Divisors of the weights, ``[heads, positions]``."""
    gathered: Tensor
    """``[positions, size]``."""
    feedforward_norm: NormTrace
    inner: Tensor
    """Feed-forward layer before the activation, ``[positions, inner]``."""
    active: Tensor
    """Feed-forward layer after the activation, ``[positions, inner]``."""


@dataclass(frozen=True)
class ForwardTrace:
    """Results of the forward pass that the backward pass needs."""

    looked_up: tuple[Tensor, Tensor | None]
    """The word vectors and the factors that normalised them."""
    blocks: list[BlockTrace]
    norm: NormTrace
    """The last norm, whose result is what the output layer reads."""


class TransformerPass:
    """Computes gradients in one forward and one backward pass.

    Args:
        model: The model.
        named: Its parameters.
    """

    def __init__(self, model: Transformer, named: Parameters) -> None:
        self._settings = model.settings
        self._named = named
        self._space = Workspace(named["embedding"].dtype)
        self._by_relu = model.settings.has_scale_invariant_attention
        self._nothing = named["embedding"].new_empty(0)

    @staticmethod
    def multiplications(model: Transformer, batch: Batch) -> int:
        """Return the number of multiplications in a forward pass.

        It is ``P (4 E^2 + 2 E F) + 2 S E`` for each block, and ``P E V`` for the output, with P
        positions, embedding size E, inner size F, V words and S pairs of a query and a key not
        after it.
        """
        packed, settings = pack_sentences(batch), model.settings
        size, inner = settings.embedding_size, settings.feedforward_size
        positions, pairs = len(packed.asked.targets), int((packed.places + 1).sum())
        block = positions * size * (4 * size + 2 * inner) + 2 * pairs * size
        return settings.layers * block + positions * size * model.vocabulary_size

    def run(self, batch: Batch, into: Parameters, update: UpdateRule) -> float:
        """Run forwards and backwards, apply gradients to ``into``, return the summed losses."""
        at_once = OutputUpdate(*output_parameters(self._settings, into), update)
        (gradient,) = self.together([batch], update.products, at_once)
        gradient.apply(into, update)
        return gradient.loss

    def together(
        self, batches: Sequence[Batch], products: Products, at_once: OutputUpdate | None = None
    ) -> list[TransformerGradient]:
        """Return the gradient of each batch's summed losses, all computed in one pass.

        The arguments and the promise are those of ``RecurrentPass.together``.
        """
        space = self._space
        joined = self._join(batches)
        trace = self._forward(joined, products)
        weights = output_parameters(self._settings, self._named)
        outputs, grad_out = output_gradients(
            weights, trace.norm.result, joined.asked, products, space, at_once
        )
        grad = space.zeros("grad_stream", *grad_out.shape)
        factors = Factors(joined, [], [])
        self._undo_norm("norm", trace.norm, grad_out, grad, factors)
        longest = joined.packed.longest if joined.positions[0].has_learned_bias else 0
        grad_bias = space.zeros("grad_bias", self._settings.heads, longest, longest)
        for layer in reversed(range(self._settings.layers)):
            name, block = f"blocks.{layer}", trace.blocks[layer]
            self._undo_feedforward(name, block, grad, factors, products)
            self._undo_attention(name, block, grad, grad_bias, factors, products)
        return [
            TransformerGradient(
                self._settings, output, factors, number, trace.looked_up, grad, grad_bias, space
            )
            for number, output in enumerate(outputs)
        ]

    def ranked(self, batches: Sequence[Batch], products: Products) -> list[RankedTargets]:
        """Return the targets of each batch with their losses and ranks, computed in one pass.

        Each has the bits that it has alone. The arguments are those of ``together``.
        """
        joined = self._join(batches)
        features = self._forward(joined, products).norm.result
        layer = output_parameters(self._settings, self._named)
        return ranked_batches(layer, features, joined.asked, products, self._space)

    def _join(self, batches: Sequence[Batch]) -> JoinedSentences:
        """Pack batches as one; those of equal length share the trace of their positions."""
        parts = [pack_sentences(batch) for batch in batches]
        traces = {
            longest: trace_positions(self._settings, self._named, longest)
            for longest in {part.longest for part in parts}
        }
        ends = np.cumsum([len(part.inputs) for part in parts])
        return JoinedSentences(
            join_sentences(parts), parts, [traces[part.longest] for part in parts], ends
        )

    def _forward(self, joined: JoinedSentences, products: Products) -> ForwardTrace:
        """Run up to the features of the output layer."""
        settings, space = self._settings, self._space
        looked_up = look_up(settings, self._named, joined.packed.inputs, space)
        stream = space.take("stream", *looked_up[0].shape).copy_(looked_up[0])
        for part, span, positions in joined:
            if positions.added is not None:
                stream[span].add_(positions.added.detach()[part.places])
        blocks = [self._block(layer, stream, joined, products) for layer in range(settings.layers)]
        return ForwardTrace(looked_up, blocks, self._norm("norm", stream))

    def _block(
        self, layer: int, stream: Tensor, joined: JoinedSentences, products: Products
    ) -> BlockTrace:
        """Run a block, adding its parts to the stream ``[positions, size]``."""
        named, space, packed = self._named, self._space, joined.packed
        name, (count, size) = f"blocks.{layer}", stream.shape
        heads, width = self._settings.heads, -(-packed.longest // COLUMNS) * COLUMNS
        norm = self._norm(f"{name}.attention_norm", stream)
        projected = space.take(f"{name}.projected", count, 3 * size)
        products.update(projected, norm.result, self._kernel(name))
        self._turn(projected, joined, 1.0)
        weights = space.take(f"{name}.weights", heads, count, width)
        sums = space.take(f"{name}.sums", heads, count)
        gathered = space.take(f"{name}.gathered", count, size)
        shared = joined.positions[0].bias
        bias = self._nothing.view(heads, 0, 0) if shared is None else shared
        attend_forward(
            packed.starts,
            projected.numpy(),
            bias.detach().numpy(),
            self._by_relu,
            weights.numpy(),
            sums.numpy(),
            gathered.numpy(),
        )
        products.update(stream, gathered, named[f"{name}.attention.output"], keep=1.0)
        second = self._norm(f"{name}.feedforward_norm", stream)
        weight = named[f"{name}.feedforward.inner"]
        inner = space.take(f"{name}.inner", count, weight.shape[1])
        products.update(inner, second.result, weight)
        active = inner.relu_() if self._settings.activation == "relu" else functional.gelu(inner)
        products.update(stream, active, named[f"{name}.feedforward.outer"], keep=1.0)
        return BlockTrace(norm, projected, weights, sums, gathered, second, inner, active)

    def _undo_feedforward(
        self, name: str, trace: BlockTrace, grad: Tensor, factors: Factors, products: Products
    ) -> None:
        """Backpropagate through the feed-forward part, updating the stream's gradient in place."""
        inner, outer = f"{name}.feedforward.inner", f"{name}.feedforward.outer"
        grad_inner = self._space.take(f"{name}.grad_inner", *trace.inner.shape)
        products.inner(grad_inner, grad, self._named[outer])
        factors.product(outer, trace.active, self._kept(f"grad of {outer}", grad))
        if self._settings.activation == "relu":
            torch.ops.aten.threshold_backward.grad_input(
                grad_inner, trace.active, 0, grad_input=grad_inner
            )
        else:
            torch.ops.aten.gelu_backward.grad_input(grad_inner, trace.inner, grad_input=grad_inner)
        grad_out = self._space.take("grad_out", *grad.shape)
        products.inner(grad_out, grad_inner, self._named[inner])
        norm = trace.feedforward_norm
        factors.product(inner, norm.result, grad_inner)
        self._undo_norm(f"{name}.feedforward_norm", norm, grad_out, grad, factors)

    def _undo_attention(
        self,
        name: str,
        trace: BlockTrace,
        grad: Tensor,
        grad_bias: Tensor,
        factors: Factors,
        products: Products,
    ) -> None:
        """Backpropagate through the attention part, updating the stream's gradient in place."""
        space, size = self._space, grad.shape[1]
        output = f"{name}.attention.output"
        grad_gathered = space.take("grad_out", *grad.shape)
        products.inner(grad_gathered, grad, self._named[output])
        factors.product(output, trace.gathered, self._kept(f"grad of {output}", grad))
        grad_projected = space.take(f"{name}.grad_projected", *trace.projected.shape)
        attend_backward(
            factors.joined.packed.starts,
            trace.projected.numpy(),
            self._by_relu,
            trace.weights.numpy(),
            trace.sums.numpy(),
            grad_gathered.numpy(),
            grad_projected.numpy(),
            grad_bias.numpy(),
        )
        self._turn(grad_projected, factors.joined, -1.0)
        grad_out = space.take("grad_out", *grad.shape)
        products.inner(grad_out, grad_projected, self._kernel(name))
        norm = trace.attention_norm
        for k, part in enumerate(PARTS):
            columns = grad_projected[:, k * size : (k + 1) * size]
            factors.product(f"{name}.attention.{part}", norm.result, columns)
        self._undo_norm(f"{name}.attention_norm", norm, grad_out, grad, factors)

    def _kept(self, name: str, rows: Tensor) -> Tensor:
        """Return a copy of rows that will change."""
        return self._space.take(name, *rows.shape).copy_(rows)

    def _kernel(self, name: str) -> Tensor:
        """Return the weights of queries, keys and values side by side, ``[size, 3 size]``."""
        matrices = [self._named[f"{name}.attention.{part}"] for part in PARTS]
        size = len(matrices[0])
        return torch.cat(matrices, 1, out=self._space.take("kernel", size, 3 * size))

    def _turn(self, projected: Tensor, joined: JoinedSentences, direction: float) -> None:
        """Rotate queries and keys, or rotate their gradient back."""
        both = 2 * (projected.shape[1] // 3)
        for part, span, positions in joined:
            if positions.turns is not None:
                rows = projected[span, :both].numpy()
                turn(rows, part.places.numpy(), positions.turns.numpy(), rows.dtype.type(direction))

    def _norm(self, name: str, x: Tensor) -> NormTrace:
        scale, shift = self._affine(name)
        normal = self._space.take(f"{name}.normal", *x.shape)
        result = self._space.take(f"{name}.result", *x.shape) if len(scale) else normal
        inverse = self._space.take(f"{name}.inverse", len(x))
        arrays = (x, scale, shift, normal, inverse, result)
        normalise(*(tensor.numpy() for tensor in arrays))
        return NormTrace(normal, inverse, result)

    def _undo_norm(
        self, name: str, trace: NormTrace, grad_out: Tensor, grad: Tensor, factors: Factors
    ) -> None:
        """Backpropagate through a norm, adding to ``grad``; ``grad_out`` is overwritten."""
        scale, _ = self._affine(name)
        ends = factors.joined.ends
        grads = [
            self._space.take(f"{name}.grad_{part}", len(ends), len(scale))
            for part in ("scale", "shift")
        ]
        rows = (grad_out, scale, trace.normal, trace.inverse, grad)
        undo_normalise(*(one.numpy() for one in rows), *(ends, *(one.numpy() for one in grads)))
        if len(scale):
            factors.vectors.append((f"{name}.scale", grads[0]))
            factors.vectors.append((f"{name}.shift", grads[1]))

    def _affine(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a norm's scale and shift, both empty if it has none."""
        if self._settings.has_scale_invariant_cell:
            return self._nothing, self._nothing
        return self._named[f"{name}.scale"], self._named[f"{name}.shift"]
