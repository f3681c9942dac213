"""The forward and backward pass of a Transformer over packed sentences.

Gradients are applied directly to the weights, so the gradient with respect to a layer's input is
always computed before its weights are updated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.kernels.cpu.attention_loops import attend_backward, attend_forward, turn
from fedsi.kernels.cpu.embedding import look_up, train_embedding
from fedsi.kernels.cpu.layer_norm import normalise, undo_normalise
from fedsi.kernels.cpu.output import UpdateRule, train_model_output
from fedsi.kernels.cpu.packing import PackedSentences, pack_sentences
from fedsi.kernels.cpu.positions import PositionTrace, trace_positions, train_positions
from fedsi.kernels.cpu.tiles import COLUMNS
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.parameters import Parameters
from fedsi.models.transformer import Transformer
from fedsi.tasks.task import Batch

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


class TransformerPass:
    """Runs one forward and backward pass and applies the gradients to ``into``.

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
        settings, space = self._settings, self._space
        packed = pack_sentences(batch)
        positions = trace_positions(settings, self._named, packed.longest)
        looked_up = look_up(settings, self._named, packed.inputs, space)
        stream = space.take("stream", *looked_up[0].shape).copy_(looked_up[0])
        if positions.added is not None:
            stream.add_(positions.added.detach()[packed.places])
        blocks = [
            self._block(layer, stream, packed, positions, update)
            for layer in range(settings.layers)
        ]
        norm = self._norm("norm", stream)
        loss, grad_out = train_model_output(
            settings, self._named, norm.result, packed.asked, into, update, space
        )
        grad = space.zeros("grad_stream", *stream.shape)
        self._undo_norm("norm", norm, grad_out, grad, into, update)
        longest = packed.longest if positions.has_learned_bias else 0
        grad_bias = space.zeros("grad_bias", settings.heads, longest, longest)
        for layer in reversed(range(settings.layers)):
            trace = blocks[layer]
            self._undo_feedforward(f"blocks.{layer}", trace, grad, into, update)
            self._undo_attention(
                f"blocks.{layer}", trace, packed, positions, grad, grad_bias, into, update
            )
        grad_added = None
        if positions.added is not None:
            grad_added = space.zeros("grad_added", packed.longest, settings.embedding_size)
            grad_added.index_add_(0, packed.places, grad)
        train_positions(positions, grad_added, grad_bias, into, update)
        train_embedding(settings, into, packed.inputs, looked_up, grad, update)
        return loss

    def _block(
        self,
        layer: int,
        stream: Tensor,
        packed: PackedSentences,
        positions: PositionTrace,
        update: UpdateRule,
    ) -> BlockTrace:
        """Run a block, adding its parts to the stream ``[positions, size]``."""
        named, space, products = self._named, self._space, update.products
        name, (count, size) = f"blocks.{layer}", stream.shape
        heads, width = self._settings.heads, -(-packed.longest // COLUMNS) * COLUMNS
        norm = self._norm(f"{name}.attention_norm", stream)
        projected = space.take(f"{name}.projected", count, 3 * size)
        products.update(projected, norm.result, self._kernel(name))
        if positions.turns is not None:
            self._turn(projected, packed, positions.turns, 1.0)
        weights = space.take(f"{name}.weights", heads, count, width)
        sums = space.take(f"{name}.sums", heads, count)
        gathered = space.take(f"{name}.gathered", count, size)
        bias = self._nothing.view(heads, 0, 0) if positions.bias is None else positions.bias
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
        self, name: str, trace: BlockTrace, grad: Tensor, into: Parameters, update: UpdateRule
    ) -> None:
        """Backpropagate through the feed-forward part, updating the stream's gradient in place."""
        inner, outer = f"{name}.feedforward.inner", f"{name}.feedforward.outer"
        grad_inner = self._space.take("grad_inner", *trace.inner.shape)
        update.products.inner(grad_inner, grad, self._named[outer])
        update.product(into[outer], trace.active.t(), grad)
        if self._settings.activation == "relu":
            torch.ops.aten.threshold_backward.grad_input(
                grad_inner, trace.active, 0, grad_input=grad_inner
            )
        else:
            torch.ops.aten.gelu_backward.grad_input(grad_inner, trace.inner, grad_input=grad_inner)
        grad_out = self._space.take("grad_out", *grad.shape)
        update.products.inner(grad_out, grad_inner, self._named[inner])
        norm = trace.feedforward_norm
        update.product(into[inner], norm.result.t(), grad_inner)
        self._undo_norm(f"{name}.feedforward_norm", norm, grad_out, grad, into, update)

    def _undo_attention(
        self,
        name: str,
        trace: BlockTrace,
        packed: PackedSentences,
        positions: PositionTrace,
        grad: Tensor,
        grad_bias: Tensor,
        into: Parameters,
        update: UpdateRule,
    ) -> None:
        """Backpropagate through the attention part, updating the stream's gradient in place."""
        space, products, size = self._space, update.products, grad.shape[1]
        output = f"{name}.attention.output"
        grad_gathered = space.take("grad_out", *grad.shape)
        products.inner(grad_gathered, grad, self._named[output])
        update.product(into[output], trace.gathered.t(), grad)
        grad_projected = space.take("grad_projected", *trace.projected.shape)
        attend_backward(
            packed.starts,
            trace.projected.numpy(),
            self._by_relu,
            trace.weights.numpy(),
            trace.sums.numpy(),
            grad_gathered.numpy(),
            grad_projected.numpy(),
            grad_bias.numpy(),
        )
        if positions.turns is not None:
            self._turn(grad_projected, packed, positions.turns, -1.0)
        grad_out = space.take("grad_out", *grad.shape)
        products.inner(grad_out, grad_projected, self._kernel(name))
        norm = trace.attention_norm
        for k, part in enumerate(PARTS):
            columns = grad_projected[:, k * size : (k + 1) * size]
            update.product(into[f"{name}.attention.{part}"], norm.result.t(), columns)
        self._undo_norm(f"{name}.attention_norm", norm, grad_out, grad, into, update)

    def _kernel(self, name: str) -> Tensor:
        """Return the weights of queries, keys and values side by side, ``[size, 3 size]``."""
        matrices = [self._named[f"{name}.attention.{part}"] for part in PARTS]
        size = len(matrices[0])
        return torch.cat(matrices, 1, out=self._space.take("kernel", size, 3 * size))

    def _turn(
        self, projected: Tensor, packed: PackedSentences, turns: Tensor, direction: float
    ) -> None:
        """Rotate queries and keys, or rotate their gradient back."""
        rows = projected[:, : 2 * (projected.shape[1] // 3)].numpy()
        turn(rows, packed.places.numpy(), turns.numpy(), rows.dtype.type(direction))

    def _norm(self, name: str, x: Tensor) -> NormTrace:
        scale, shift = self._affine(name)
        normal = self._space.take(f"{name}.normal", *x.shape)
        result = self._space.take(f"{name}.result", *x.shape) if len(scale) else normal
        inverse = self._space.take(f"{name}.inverse", len(x))
        arrays = (x, scale, shift, normal, inverse, result)
        normalise(*(tensor.numpy() for tensor in arrays))
        return NormTrace(normal, inverse, result)

    def _undo_norm(
        self,
        name: str,
        trace: NormTrace,
        grad_out: Tensor,
        grad: Tensor,
        into: Parameters,
        update: UpdateRule,
    ) -> None:
        """Backpropagate through a norm, adding to ``grad``; ``grad_out`` is overwritten."""
        scale, _ = self._affine(name)
        grads = [self._space.take(f"grad_{part}", len(scale)) for part in ("scale", "shift")]
        arrays = (grad_out, scale, trace.normal, trace.inverse, grad, *grads)
        undo_normalise(*(tensor.numpy() for tensor in arrays))
        if len(scale):
            update.whole(into[f"{name}.scale"], grads[0])
            update.whole(into[f"{name}.shift"], grads[1])

    def _affine(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a norm's scale and shift, both empty if it has none."""
        if self._settings.has_scale_invariant_cell:
            return self._nothing, self._nothing
        return self._named[f"{name}.scale"], self._named[f"{name}.shift"]
