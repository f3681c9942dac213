"""Mamba-2 language models with their usual or with mimetic initial parameters.

A block updates the stream u, with N the division by the root mean square and learned scales::

    z, (x, B, C), dt = split(N(u) W)
    x, B, C = silu(convolution(x, B, C))            causal, channel by channel, 4 tokens
    y = scan(x, softplus(dt + dt_bias), exp(A_log), B, C) + D x
    u <- u + N(y silu(z)) W_out

and the output layer reads ``N(u)`` after the last block. ``scan`` is in ``state_space.py``.
x has ``model.heads`` heads and ``model.hidden_size`` channels in total, B and C have
``model.state_size``.
The memory of a text is the state of each block's scan and the last 3 inputs of its convolution,
whatever the text's length.

``model.initialisation`` selects the initial parameters that decide what the scan remembers:

==============  =================================  =======================================
parameter       ``default`` and ``paper``          ``mimetic``
==============  =================================  =======================================
exp(A_log)      uniform in 1 to 16, per head       0.001: nothing is forgotten
dt              log-uniform in .001 to .1          1 for every token: columns of W are 0
columns of B    drawn apart from those of C        equal to those of C, so that a token
and C in W                                         reads what like tokens wrote
==============  =================================  =======================================

So a mimetic block begins as linear attention to equal tokens. With
``model.convolution=identity`` the convolution begins as the identity, with any of them. Other
matrices are uniform within 1/sqrt(inputs).

Sources: Dao and Gu (arXiv 2405.21060) for the block; Trockman, Harutyunyan, Kolter, Kumar and
Bhojanapalli (arXiv 2410.11135) for the mimetic initialisation, which correlates B and C rather than
making them equal.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.exported import Exported
from fedsi.models.layers import (
    EMBEDDING_RANGE,
    Array,
    dense,
    embed_tokens,
    features_themselves,
    output_logits,
    rms_normalise,
)
from fedsi.models.model import Memory, Outputs
from fedsi.models.parameters import Layout, Parameters, drawn
from fedsi.models.positions.encoding import inverse_softplus
from fedsi.models.state_space import CHUNK, causal_convolution, scan

WIDTH = 4
"""Tokens that the convolution sees."""

MIMETIC_RATE = 1e-3


@dataclass(frozen=True)
class Mamba:
    """The functions of a Mamba-2 model. Its parameters are always passed in.

    Every parameter may have a leading client axis; inputs and results then have it too.

    Args:
        settings: Architecture and sizes; ``embedding_size`` is the size of the stream.
        vocabulary_size: Number of token ids, special tokens included.
    """

    settings: ModelSettings
    vocabulary_size: int
    longest: int | None = None
    """None: any number of tokens can be read."""

    @property
    def frozen(self) -> Parameters:
        """No parameters, because all are trained."""
        return {}

    @property
    def _widths(self) -> list[int]:
        """Columns of a block's W: of z, of x with B and C, and of dt."""
        settings = self.settings
        convolved = settings.hidden_size + 2 * settings.state_size
        return [settings.hidden_size, convolved, settings.heads]

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, without the client axis."""
        size, hidden = self.settings.embedding_size, self.settings.hidden_size
        heads, (_, convolved, _) = self.settings.heads, self._widths
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.vocabulary_size, size)}
        for layer in range(self.settings.layers):
            block: dict[str, tuple[int, ...]] = {
                "norm": (size,),
                "input": (size, sum(self._widths)),
                "convolution.weight": (WIDTH, convolved),
                "convolution.bias": (convolved,),
                "dt_bias": (heads,),
                "A_log": (heads,),
                "D": (heads,),
                "output_norm": (hidden,),
                "output": (hidden, size),
            }
            shapes |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
        shapes["norm"] = (size,)
        if not self.settings.tied_output:
            shapes["output.weight"] = (size, self.vocabulary_size)
        return Layout(shapes | {"output.bias": (self.vocabulary_size,)})

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw initial parameters, float32 ``[parameters]``."""
        return drawn(self.layout, lambda name, shape: self._draw(rng, name, shape))

    def _draw(self, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
        limit = EMBEDDING_RANGE[self.settings.initialisation]
        match name.split("."):
            case ["embedding"]:
                return rng.uniform(-limit, limit, shape)
            case [*_, "dt_bias" | "A_log" as last]:
                return self._draw_memory(rng, last, shape)
            case [*_, "norm" | "output_norm" | "D" | "bias" as last]:
                return np.full(shape, 0.0 if last == "bias" else 1.0)
        weight: Array = rng.uniform(-1, 1, shape) / np.sqrt(shape[0])
        if name.endswith(".input") and self.settings.initialisation == "mimetic":
            return self._mimetic_input(weight)
        if name.endswith(".convolution.weight") and self.settings.convolution == "identity":
            weight[:] = 0.0
            weight[-1] = 1.0
        return weight

    def _draw_memory(self, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
        """Draw a head's decay rate or its step size, in the form in which it is learned."""
        mimetic = self.settings.initialisation == "mimetic"
        if name == "A_log":
            return np.log(np.full(shape, MIMETIC_RATE) if mimetic else rng.uniform(1, 16, shape))
        low, high = np.log(1e-3), np.log(1e-1)
        steps = np.ones(shape) if mimetic else np.exp(rng.uniform(low, high, shape))
        return inverse_softplus(steps)

    def _mimetic_input(self, weight: Array) -> Array:
        """Return W with equal columns for B and C, and without an influence of tokens on dt."""
        settings = self.settings
        z, convolved, _ = np.split(weight, np.cumsum(self._widths[:-1]), 1)
        x, write, _ = np.split(convolved, np.cumsum([settings.hidden_size, settings.state_size]), 1)
        return np.concatenate([z, x, write, write, np.zeros((len(weight), settings.heads))], 1)

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the inputs of the output layer.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            inputs: Token ids, ``[*, batch, time]``.

        Returns:
            ``[*, batch, time, embedding]``.
        """
        return self.continued(parameters, inputs, [])[0]

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the features of words that continue a memory, and the extended memory.

        Args:
            parameters: Same as in ``features``.
            inputs: Same as in ``features``; at least one word of each sentence.
            memory: The inputs of each block's convolution, ``[*, batch, 3, channels]``, and the
                state of its scan, ``[*, batch, heads, state, head size]``; it is not modified.
        """
        return self._read(parameters, inputs, memory, CHUNK)

    def _read(
        self, parameters: Parameters, inputs: Tensor, memory: Memory, chunk: int | None
    ) -> tuple[Tensor, Memory]:
        stream = embed_tokens(self.settings, parameters, inputs)
        longer: Memory = []
        for layer in range(self.settings.layers):
            prefix = f"blocks.{layer}"
            before = memory[layer] if memory else (None, None)
            added, kept = self.block(
                parameters, prefix, rms_norm(stream, parameters[f"{prefix}.norm"]), before, chunk
            )
            stream = stream + added
            longer.append(kept)
        return rms_norm(stream, parameters["norm"]), longer

    def block(
        self,
        parameters: Parameters,
        prefix: str,
        x: Tensor,
        before: tuple[Tensor | None, ...] = (None, None),
        chunk: int | None = CHUNK,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return what a block adds to the stream, and its memory.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            prefix: Prefix of the block's parameters.
            x: The normalised stream, ``[*, batch, time, embedding]``.
            before: The block's memory of the words before, or a pair of None.
            chunk: Tokens of a chunk of the scan, or None for a single chunk.
        """
        own = {
            name.removeprefix(f"{prefix}."): value
            for name, value in parameters.items()
            if name.startswith(f"{prefix}.")
        }
        settings = self.settings
        gates, inner, steps = dense(x, own["input"]).split(self._widths, -1)
        convolved, tail = causal_convolution(
            inner, own["convolution.weight"], own["convolution.bias"], before[0]
        )
        values, writes, reads = functional.silu(convolved).split(
            [settings.hidden_size, settings.state_size, settings.state_size], -1
        )
        heads = values.unflatten(-1, (settings.heads, -1))
        steps = functional.softplus(steps + own["dt_bias"][..., None, None, :])
        found, state = scan(heads, steps, own["A_log"].exp(), writes, reads, before[1], chunk=chunk)
        found = found + own["D"][..., None, None, :, None] * heads
        gated = rms_norm(found.flatten(-2) * functional.silu(gates), own["output_norm"])
        return dense(gated, own["output"]), (tail, state)

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return unnormalised log probabilities of the next word, as ``output_logits``."""
        return output_logits(self.settings, parameters, features)

    output_inputs = staticmethod(features_themselves)

    def exported(self, parameters: Parameters, outputs: Outputs | None = None) -> nn.Module:
        """Return the function from tokens to logits, or to ``outputs``, without chunks."""

        def features(named: Parameters, tokens: Tensor) -> Tensor:
            return self._read(named, tokens, [], None)[0]

        return Exported(self, features, parameters, outputs)


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """Divide ``x [*, batch, time, size]`` by its root mean square and scale it."""
    return rms_normalise(x) * scale[..., None, None, :]
