"""Recurrent language models: embedding, cell, optional projection, output layer.

A cell receives ``a = W x + b + U s``, where x is the word's vector and s the state before it, split
into gates. With ``gate`` and ``squash`` standing for sigmoid and tanh (CIFG), or for their
max-normalised replacements (SI-CIFG), a step is::

    f = gate(a_f)      o = gate(a_o)      g = squash(a_g)
    c' = f * c + (1 - f) * g              h' = o * squash(c')

The LSTM has a separate input gate for the candidate, ``i = sigmoid(a_i)``, and ``c' = f * c + i *
g``. The state is h', or ``h' P`` with a recurrent projection P.

The GRU keeps h itself. With gates z (keep) and r (reset), and the two terms of the candidate kept
separate::

    z = sigmoid(a_z)      r = sigmoid(a_r)      g = tanh(W_g x + b_g + r * U_g s)
    h' = z * h + (1 - z) * g

Weights are initialised as in the Stack Overflow baseline of Reddi et al. (arXiv 2003.00295):
recurrent kernel orthogonal, input kernel He normal, dense layers Glorot uniform. The scale of the
embeddings differs, because it decides how well the scale-invariant cell trains: if the recurrent
pre-activation dominates the input's, max-normalisation amplifies it at every step.

Sources: Greff et al., "LSTM: A Search Space Odyssey" (arXiv 1503.04069) for the coupled input and
forget gate; Cho et al. (arXiv 1406.1078) for the GRU, whose reset gate acts after the product as in
cuDNN and PyTorch; Ro et al. (arXiv 2403.08100) for the scale-invariant variant; Sak et al. (arXiv
1402.1128) for the recurrent projection.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsi.experiment import ModelSettings
from fedsi.models.exported import Exported
from fedsi.models.layers import (
    EMBEDDING_RANGE,
    Array,
    dense,
    embed_tokens,
    glorot_uniform,
    output_logits,
)
from fedsi.models.model import Memory, Outputs
from fedsi.models.parameters import Layout, Parameters, drawn

GATES = 3
"""Gates of a coupled cell, side by side in its weights: forget, output, candidate. The LSTM's input
gate follows."""

SMALLEST_MAXIMUM = 1e-12
FORGET_BIAS = {"default": 1.0, "paper": 0.0}


def max_normalise(x: Tensor) -> Tensor:
    """Divide by the largest magnitude along the last axis: ``MaxN(x)_i = x_i / max_j |x_j|``.

    The divisor is clamped from below, so a row of zeros stays zero instead of becoming 0/0. Above
    the clamp the result is exactly invariant to the scale of ``x``. The gradient flows through the
    maximum.
    """
    return x / x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_MAXIMUM)


def max_normalised_relu(x: Tensor) -> Tensor:
    """Return ``MaxN(relu(x))`` along the last axis; a row without positive entries gives zeros."""
    positive = x.relu()
    return positive / positive.amax(-1, keepdim=True).clamp_min(SMALLEST_MAXIMUM)


def cifg(inputs: Tensor, fed_back: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step of the LSTM with coupled forget and input gates.

    No shape in this function depends on the batch, as the ONNX exporter requires of a loop body.

    Args:
        inputs: ``W x + b``, ``[*, batch, gates hidden]``.
        fed_back: ``U s``, of the same shape.
        cell: The cell state, ``[*, batch, hidden]``.

    Returns:
        The hidden state and the new cell state, ``[*, batch, hidden]`` each.
    """
    size = cell.shape[-1]
    gates, candidate = (inputs + fed_back).split([2 * size, size], -1)
    forget, output = gates.sigmoid().chunk(2, -1)
    cell = torch.lerp(candidate.tanh(), cell, forget)
    return output * cell.tanh(), cell


def si_cifg(inputs: Tensor, fed_back: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step of the scale-invariant CIFG; arguments and result as in ``cifg``."""
    forget, output, candidate = (inputs + fed_back).chunk(3, -1)
    cell = torch.lerp(max_normalise(candidate), cell, max_normalised_relu(forget))
    return max_normalised_relu(output) * max_normalise(cell), cell


def lstm(inputs: Tensor, fed_back: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step of the LSTM; arguments and result as in ``cifg``."""
    size = cell.shape[-1]
    gates, candidate, enter = (inputs + fed_back).split([2 * size, size, size], -1)
    forget, output = gates.sigmoid().chunk(2, -1)
    cell = forget * cell + enter.sigmoid() * candidate.tanh()
    return output * cell.tanh(), cell


def gru(inputs: Tensor, fed_back: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one step of the GRU; arguments and result as in ``cifg``. Its cell state is h."""
    sizes = [2 * hidden.shape[-1], hidden.shape[-1]]
    gates, candidate = inputs.split(sizes, -1)
    fed_to_gates, fed_to_candidate = fed_back.split(sizes, -1)
    keep, reset = (gates + fed_to_gates).sigmoid().chunk(2, -1)
    candidate = (candidate + reset * fed_to_candidate).tanh()
    hidden = torch.lerp(candidate, hidden, keep)
    return hidden, hidden


@dataclass(frozen=True)
class Cell:
    """A recurrent cell."""

    step: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """The step function, with the signature of ``cifg``."""
    gates: int = GATES
    """Number of gates, side by side in the weights; the first controls what is kept."""


CELLS = {
    "cifg": Cell(cifg),
    "si_cifg": Cell(si_cifg),
    "lstm": Cell(lstm, gates=4),
    "gru": Cell(gru),
}


def recurrence(
    cell: Cell,
    inputs: Tensor,
    kernel: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    projection: Tensor | None = None,
    *,
    before: tuple[Tensor, ...] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run a cell over a batch of sequences.

    Args:
        cell: The cell.
        inputs: ``[*, batch, time, embedding]``; the star is an optional client axis.
        kernel: W, ``[*, embedding, gates hidden]``.
        recurrent: U, ``[*, state, gates hidden]``; the state is the hidden state or its projection.
        bias: b, ``[*, gates hidden]``.
        projection: P, ``[*, hidden, state]``, or None if the state is the hidden state.
        before: Initial state and cell state, or None for zeros.

    Returns:
        The states, ``[*, batch, time, state]``, and the last state and cell state.
    """
    projected = dense(inputs, kernel, bias)
    sizes = recurrent.shape[-2], recurrent.shape[-1] // cell.gates
    state, kept = before or (inputs.new_zeros(*inputs.shape[:-2], size) for size in sizes)
    outputs = []
    for step in projected.unbind(-2):
        hidden, kept = cell.step(step, state @ recurrent, kept)
        state = hidden if projection is None else hidden @ projection
        outputs.append(state)
    return torch.stack(outputs, -2), (state, kept)


def exportable_recurrence(
    cell: Cell,
    inputs: Tensor,
    kernel: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    projection: Tensor | None = None,
) -> Tensor:
    """Return the states of ``recurrence`` using a loop that can be exported; no client axis."""
    # Imported here because few programs export, and the import is slow.
    from torch._higher_order_ops.scan import scan  # noqa: PLC0415

    projected = dense(inputs, kernel, bias)
    sizes = recurrent.shape[0], recurrent.shape[1] // cell.gates
    start = tuple(inputs.new_zeros(inputs.shape[0], size) for size in sizes)

    def step(before: tuple[Tensor, ...], word: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        state, kept = before
        hidden, kept = cell.step(word, state @ recurrent, kept)
        state = hidden if projection is None else hidden @ projection
        return (state, kept.clone()), state.clone()  # results of a loop must not share memory

    _, states = scan(step, start, projected.transpose(0, 1))
    result: Tensor = states.transpose(0, 1)
    return result


@dataclass(frozen=True)
class Recurrent:
    """The functions of a recurrent model. Its parameters are always passed in.

    Every parameter may have a leading client axis; inputs and results then have it too.

    Args:
        settings: Architecture and sizes.
        vocabulary_size: Number of token ids, special tokens included.
    """

    settings: ModelSettings
    vocabulary_size: int
    longest: int | None = None
    """None: any number of tokens can be read."""

    @property
    def cell(self) -> Cell:
        """The recurrent cell."""
        return CELLS[self.settings.architecture]

    @property
    def frozen(self) -> Parameters:
        """No parameters, because all are trained."""
        return {}

    @property
    def layout(self) -> Layout:
        """Names and shapes of the parameters, without the client axis.

        With a projection and an untied output, vocabulary 10,004, embedding 96 and hidden size
        670 this is the Stack Overflow next-word model of Reddi et al. (arXiv 2003.00295): 4,050,748
        parameters with its LSTM, 3,536,858 with a CIFG.
        """
        size, hidden, gates = (
            self.settings.embedding_size,
            self.settings.hidden_size,
            self.cell.gates,
        )
        state = size if self.settings.recurrent_projection else hidden
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (self.vocabulary_size, size),
            "cell.kernel": (size, gates * hidden),
            "cell.recurrent": (state, gates * hidden),
            "cell.bias": (gates * hidden,),
        }
        features = state
        if self.settings.recurrent_projection:
            shapes["projection.weight"] = (hidden, size)
        elif self.settings.projection:
            shapes |= {"projection.weight": (hidden, size), "projection.bias": (size,)}
            features = size
        if not self.settings.tied_output:
            shapes["output.weight"] = (features, self.vocabulary_size)
        return Layout(shapes | {"output.bias": (self.vocabulary_size,)})

    def draw(self, rng: np.random.Generator) -> Tensor:
        """Draw initial parameters, float32 ``[parameters]``."""
        return drawn(self.layout, lambda name, shape: self._draw(rng, name, shape))

    def _draw(self, rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
        style = self.settings.initialisation
        match name:
            case "embedding":
                limit = EMBEDDING_RANGE[style]
                return rng.uniform(-limit, limit, shape)
            case "cell.kernel":
                return rng.normal(0.0, np.sqrt(2.0 / shape[0]), shape)
            case "cell.recurrent":
                return _orthogonal(rng, shape)
            case "projection.weight" | "output.weight":
                return glorot_uniform(rng, shape)
        bias = np.zeros(shape)
        if name == "cell.bias":
            bias[: self.settings.hidden_size] = FORGET_BIAS[style]
        return bias

    def features(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """Return the recurrent states for a batch of sequences.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            inputs: Token ids, ``[*, batch, time]``.

        Returns:
            ``[*, batch, time, state]``; the state is the hidden state or, with a recurrent
            projection, of the embedding size.
        """
        return self.continued(parameters, inputs, [])[0]

    def continued(
        self, parameters: Parameters, inputs: Tensor, memory: Memory
    ) -> tuple[Tensor, Memory]:
        """Return the features of words that continue a memory, and the extended memory.

        Args:
            parameters: Same as in ``features``.
            inputs: Same as in ``features``; at least one word of each sentence.
            memory: The memory returned for the words before; it is not modified.
        """
        states, last = recurrence(
            self.cell,
            embed_tokens(self.settings, parameters, inputs),
            *self._weights(parameters),
            before=memory[0] if memory else None,
        )
        return states, [last]

    def _weights(self, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return W, U, b and P."""
        return (
            parameters["cell.kernel"],
            parameters["cell.recurrent"],
            parameters["cell.bias"],
            parameters["projection.weight"] if self.settings.recurrent_projection else None,
        )

    def logits(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return unnormalised log probabilities of the next word.

        Args:
            parameters: Named tensors, ``[*, ...]``.
            features: ``[*, batch, time, state]``, or ``[targets, state]`` without client axis.

        Returns:
            The shape of ``features`` with the vocabulary as the last axis.
        """
        states = self.output_inputs(parameters, features)
        return output_logits(self.settings, parameters, states)

    def output_inputs(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Return the states, projected if the output layer reads a projection."""
        if self.settings.projection and not self.settings.recurrent_projection:
            return dense(features, parameters["projection.weight"], parameters["projection.bias"])
        return features

    def exported(self, parameters: Parameters, outputs: Outputs | None = None) -> nn.Module:
        """Return the function from tokens to logits, or to ``outputs``, as a module for export."""

        def features(named: Parameters, tokens: Tensor) -> Tensor:
            vectors = embed_tokens(self.settings, named, tokens)
            return exportable_recurrence(self.cell, vectors, *self._weights(named))

        return Exported(self, features, parameters, outputs)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return ``[state, gates hidden]`` with orthonormal rows: one wide orthogonal kernel."""
    q, r = np.linalg.qr(rng.normal(size=shape[::-1]))
    columns: Array = q * np.sign(np.diag(r))
    return columns.T
