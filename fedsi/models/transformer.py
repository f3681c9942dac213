"""Small causal Transformers and their scale-invariant variant, as functions of parameters.

A block updates the stream x, with N a layer norm::

    x <- x + attention(N(x))
    x <- x + feedforward(N(x))

and the output layer reads ``N(x)`` after the last block. With ``model.norms=around`` each part is
normalised before it is added too, as in ``x + N(attention(N(x)))``. ``model.feedforward`` selects
the feed-forward part, a file of ``fedsi/models/feedforward``. Only the norms and the output layer
have biases. ``model.scale_invariance`` selects:

=============  =======================  ====================  ==========================
value          attention                layer norms           activation
=============  =======================  ====================  ==========================
none           softmax                  with scale and shift  ``model.activation``
cell           softmax                  without               ReLU
attention      ReLU over its row sum    with                  ``model.activation``
full           ReLU over its row sum    without               ReLU
=============  =======================  ====================  ==========================

``transformer`` accepts any of the four; ``si_transformer`` is ``transformer`` with ``full``.

Invariances: scaling all parameters of one of these groups by any a > 0 leaves the output unchanged,
so the loss's gradient is orthogonal to the group.

* With ReLU attention and no position bias, or rotary positions (q and k stay linear in their
  weights): each ``query`` and each ``key`` alone, of each block, head by head.
* With ReLU attention and a bias that is linear in some parameters (T5's table; weight and bias of
  the last layer of FIRE): those parameters and every block's ``query`` (or ``key``) together. None
  of them alone, and nothing with ALiBi or Kerple, because ``W_q -> a W_q`` changes the balance of
  content and position. As a grows, the bias vanishes. As a falls, the bias alone remains: with T5
  and FIRE it still selects words, while with ALiBi and Kerple, where it is never positive, a query
  sees only its own word.
* With an untied output, embeddings without normalisation and no sinusoidal positions: embeddings,
  learned positions, every ``attention.output`` and every ``feedforward.outer`` together, because
  they set the scale of the stream and each part reads the stream normalised. The same holds with
  ``value`` in place of ``output`` and, with ReLU, ``inner`` in place of ``outer``.
* With ``model.embedding_normalisation=rms`` and an untied output: each word's vector alone.

Homogeneous of degree 1 are: the attention's output in ``value`` and in ``output``; the feed-forward
part's output in ``outer`` and, with ReLU, in ``inner``; the logits in ``output.weight`` and
``output.bias``. Softmax attention is not homogeneous in ``query`` and ``key``, nor GELU in
``inner``.

Matrices start Glorot uniform, layer norms as the identity, position encodings as their files say.
Embeddings start small if the output is tied: a layer norm gives the output layer features of size
one, so larger embeddings would make it confident of random words.

Sources: Vaswani et al. (arXiv 1706.03762); Xiong et al. (arXiv 2002.04745) for pre-norm blocks; Li,
Bhojanapalli, Zaheer, Reddi and Kumar (arXiv 2202.00980) for the scale-invariant variant.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from fedsi.data.protocol import PAD
from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.models.attention import attend, causal, split_heads
from fedsi.models.exported import Exported
from fedsi.models.feedforward.table import function_of, part_of
from fedsi.models.layers import (
    EMBEDDING_RANGE,
    Array,
    dense,
    embed_tokens,
    features_themselves,
    glorot_uniform,
    output_logits,
    rms_normalise,
)
from fedsi.models.model import Memory, Outputs
from fedsi.models.parameters import Layout, Parameters, drawn
from fedsi.models.positions.ids import (
    IdEncoding,
    Rotation,
    check_ids_allowed,
    own_name,
    stream_name,
)
from fedsi.models.positions.learned import check_length
from fedsi.models.positions.table import ENCODINGS


@dataclass(frozen=True)
class Transformer:
    """The functions of a Transformer. Its parameters are always passed in.

    Every parameter may have a leading client axis; inputs and results then have it too.

    Args:
        settings: Architecture and sizes; ``embedding_size`` is the size of the stream.
        vocabulary_size: Number of token ids, special tokens included.
        streams: Number of streams of position ids that the task gives; 0 to count positions from 0.

    Raises:
        UserError: The position encoding is not defined for ids, or not for several streams.
    """

    settings: ModelSettings
    vocabulary_size: int
    streams: int = 0

    def __post_init__(self) -> None:
        if self.streams:
            check_ids_allowed(self.settings.positions, self.streams)

    @property
    def longest(self) -> int | None:
        """The largest number of tokens that can be read, or None for any number."""
        return self.settings.longest_sequence

    @property
    def frozen(self) -> Parameters:
        """No parameters, because all are trained."""
        return {}

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, without the client axis."""
        size = self.settings.embedding_size
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocabulary_size, size)}
        for name, shape in ENCODINGS[self.settings.positions].shapes(self.settings).items():
            shapes |= {stream_name(name, stream): shape for stream in range(self.streams or 1)}
        for layer in range(self.settings.layers):
            shapes |= self._block_shapes(f"blocks.{layer}")
        shapes |= self._norm_shapes("norm")
        if not self.settings.tied_output:
            shapes["output.weight"] = (size, self.vocabulary_size)
        return Layout(shapes | {"output.bias": (self.vocabulary_size,)})

    def _block_shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        size = self.settings.embedding_size
        attention = ("query", "key", "value", "output")
        feedforward = part_of(self.settings).shapes(self.settings)
        return {
            **self._norm_shapes(f"{prefix}.attention_norm"),
            **{f"{prefix}.attention.{name}": (size, size) for name in attention},
            **self._after_shapes(f"{prefix}.attention_after"),
            **self._norm_shapes(f"{prefix}.feedforward_norm"),
            **{f"{prefix}.feedforward.{name}": shape for name, shape in feedforward.items()},
            **self._after_shapes(f"{prefix}.feedforward_after"),
        }

    def _after_shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        return self._norm_shapes(prefix) if self.settings.norms == "around" else {}

    def _norm_shapes(self, prefix: str) -> dict[str, tuple[int, ...]]:
        if self.settings.has_scale_invariant_cell:
            return {}
        return {f"{prefix}.{name}": (self.settings.embedding_size,) for name in ("scale", "shift")}

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw initial parameters, float32 ``[parameters]``."""
        return drawn(self.layout, lambda name, shape: self._draw(rng, name, shape))

    def _draw(self, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
        settings = self.settings
        match name.split("."):
            case ["positions", *_]:
                encoding = ENCODINGS[settings.positions]
                shapes = encoding.shapes(settings)
                return encoding.draw(rng, own_name(name), settings, shapes)
            case ["embedding"]:
                style = "paper" if settings.tied_output else settings.initialisation
                limit = EMBEDDING_RANGE[style]
                return rng.uniform(-limit, limit, shape)
            case ["output", "weight"] | ["blocks", _, "attention" | "feedforward", _]:
                matrices = [glorot_uniform(rng, shape[-2:]) for _ in range(prod(shape[:-2]))]
                return np.stack(matrices).reshape(shape)
        return np.full(shape, 1.0 if name.endswith(".scale") else 0.0)

    def features(self, parameters: Parameters, inputs: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the inputs of the output layer.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            inputs: Token ids, ``[*, batch, time]``.
            ids: Ids of the tokens' positions, int64 ``[streams, batch, time]``, -1 for a token
                without one; None to count from 0. There is no client axis then.

        Returns:
            ``[*, batch, time, embedding]``.

        Raises:
            UserError: A sequence is longer than the learned positions.
        """
        return self.features_and_parts(parameters, inputs, ids)[0]

    def features_and_parts(
        self, parameters: Parameters, inputs: Tensor, ids: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the features, and the input of each block's feed-forward part, of their shape.

        Raises:
            UserError: Same as ``features``.
        """
        seen: list[Tensor] = []
        if ids is None:
            return self._continued(parameters, inputs, [], seen)[0], seen
        positions = torch.arange(inputs.shape[-1], device=inputs.device)
        encoding = IdEncoding(self.settings, parameters, ids)
        stream = encoding.embed(embed_tokens(self.settings, parameters, inputs))
        bias, turn = encoding.bias(), encoding.rotate
        return self._blocks(parameters, stream, positions, bias, [], turn, seen)[0], seen

    def features_and_penalty(
        self, parameters: Parameters, inputs: Tensor, ids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the features, and what training adds to the mean loss of a batch.

        Raises:
            UserError: Same as ``features``.
        """
        features, seen = self.features_and_parts(parameters, inputs, ids)
        penalty, real = part_of(self.settings).penalty, inputs != PAD
        assert penalty is not None, "nothing is added"  # noqa: S101
        terms = [
            penalty(self.settings, self.part_parameters(parameters, layer), x, real)
            for layer, x in enumerate(seen)
        ]
        return features, torch.stack(terms).sum()

    def part_parameters(self, parameters: Parameters, layer: int) -> Parameters:
        """Return the parameters of a block's feed-forward part by their names within it."""
        names = part_of(self.settings).shapes(self.settings)
        return {name: parameters[f"blocks.{layer}.feedforward.{name}"] for name in names}

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the features of words that continue a memory, and the extended memory.

        Args:
            parameters: Same as in ``features``.
            inputs: Same as in ``features``.
            memory: Keys and values of all tokens before, ``[*, batch, heads, time, head size]`` for
                each block; it is not modified.

        Raises:
            UserError: The sequence is longer than the learned positions, or the task gives ids.
        """
        return self._continued(parameters, inputs, memory, [])

    def _continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory, seen: list[Tensor]
    ) -> tuple[Tensor, Memory]:
        """Return the same; what the feed-forward parts read is added to ``seen``."""
        if self.streams:
            raise UserError(
                "the model reads position ids that its task gives to whole examples, so it cannot "
                "continue a text; evaluate it with fedsi evaluate --lengths, or train with "
                "task.ids=ordinary"
            )
        past = memory[0][0].shape[-2] if memory else 0
        check_length(self.settings, past + inputs.shape[-1])
        keys = torch.arange(past + inputs.shape[-1], device=inputs.device)
        positions = keys[past:]
        encoding = ENCODINGS[self.settings.positions]
        stream = embed_tokens(self.settings, parameters, inputs)
        if encoding.embed:
            stream = encoding.embed(parameters, stream, positions)
        # All blocks share the encoding, so the bias is computed once.
        bias = (
            encoding.bias(parameters, positions, keys, self.settings.heads)
            if encoding.bias
            else None
        )
        rotate = encoding.rotate
        turn = (lambda heads: rotate(heads, positions)) if rotate else None
        return self._blocks(parameters, stream, positions, bias, memory, turn, seen)

    def _blocks(
        self,
        parameters: Parameters,
        stream: Tensor,
        positions: Tensor,
        bias: Tensor | None,
        memory: Memory,
        rotate: Rotation | None,
        seen: list[Tensor],
    ) -> tuple[Tensor, Memory]:
        """Return the features of a stream ``[*, batch, time, embedding]``, and the memory.

        The input of each block's feed-forward part is added to ``seen``.
        """
        longer: Memory = []
        for layer in range(self.settings.layers):
            prefix = f"blocks.{layer}"
            before = memory[layer] if memory else None
            added, kept = self.attention(
                parameters,
                f"{prefix}.attention",
                layer_norm(parameters, f"{prefix}.attention_norm", stream),
                positions,
                bias,
                before,
                rotate,
            )
            stream = stream + self._after(parameters, f"{prefix}.attention_after", added)
            inner = layer_norm(parameters, f"{prefix}.feedforward_norm", stream)
            seen.append(inner)
            one = bool(memory) and inner.shape[:-1].numel() == 1
            added = self.feedforward(parameters, layer, inner, one=one)
            stream = stream + self._after(parameters, f"{prefix}.feedforward_after", added)
            longer.append(kept)
        return layer_norm(parameters, "norm", stream), longer

    def _after(self, parameters: Parameters, prefix: str, x: Tensor) -> Tensor:
        """Return what a part adds to the stream, normalised if the settings say so."""
        return layer_norm(parameters, prefix, x) if self.settings.norms == "around" else x

    def attention(
        self,
        parameters: Parameters,
        prefix: str,
        x: Tensor,
        positions: Tensor,
        bias: Tensor | None = None,
        before: tuple[Tensor, ...] | None = None,
        rotate: Rotation | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return a block's attention.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            prefix: Prefix of the block's attention parameters.
            x: ``[*, batch, time, embedding]``.
            positions: Positions of the tokens in the sequence, from 0, ``[time]``.
            bias: ``[*, heads, time, past + time]``, or ``[batch, heads, time, time]`` with ids.
            before: Keys and values of the past tokens.
            rotate: Rotation of queries and keys by the encoding.

        Returns:
            ``[*, batch, time, embedding]``, and keys and values of all tokens.
        """
        queries, keys, values = (
            split_heads(dense(x, parameters[f"{prefix}.{name}"]), self.settings.heads)
            for name in ("query", "key", "value")
        )
        if rotate:
            queries, keys = rotate(queries), rotate(keys)
        if before is not None:
            keys = torch.cat([before[0], keys], -2)
            values = torch.cat([before[1], values], -2)
        visible = causal(positions, torch.arange(keys.shape[-2], device=positions.device))
        si = self.settings.has_scale_invariant_attention
        gathered = attend(queries, keys, values, bias, visible, si=si)
        return dense(gathered, parameters[f"{prefix}.output"]), (keys, values)

    def feedforward(
        self, parameters: Parameters, layer: int, x: Tensor, *, one: bool = False
    ) -> Tensor:
        """Return a block's feed-forward part, of the shape of ``x``.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            layer: The block's number.
            x: ``[*, batch, time, embedding]``.
            one: Whether ``x`` is a single token that follows a memory, for which only the
                parameters that it needs are read.
        """
        function = function_of(self.settings, one=one and not torch.is_grad_enabled())
        return function(self.settings, self.part_parameters(parameters, layer), x)

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return unnormalised log probabilities of the next word, as ``output_logits``."""
        return output_logits(self.settings, parameters, features)

    output_inputs = staticmethod(features_themselves)

    def exported(self, parameters: Parameters, outputs: Outputs | None = None) -> nn.Module:
        """Return the function from tokens to logits, or to ``outputs``, as a module for export."""
        return Exported(self, self.features, parameters, outputs)


def layer_norm(parameters: Parameters, prefix: str, x: Tensor) -> Tensor:
    """Centre rows and divide them by their standard deviation; scale and shift if those exist.

    The variance is clamped from below instead of adding an epsilon, so that above the clamp the
    result is exactly invariant to the scale of ``x``.
    """
    normal = rms_normalise(x - x.mean(-1, keepdim=True))
    if f"{prefix}.scale" not in parameters:
        return normal
    scale, shift = (
        parameters[f"{prefix}.{name}"].unsqueeze(-2).unsqueeze(-2) for name in ("scale", "shift")
    )
    return normal * scale + shift
