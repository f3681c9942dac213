"""The CIFG cell, its scale-invariant variant, and the LSTM: one recurrence.

With ``gate`` and ``squash`` standing for sigmoid and tanh (CIFG), or for their max-normalised
replacements (SI-CIFG), a step is::

    f = gate(W_f x + U_f h + b_f)      o = gate(W_o x + U_o h + b_o)
    g = squash(W_g x + U_g h + b_g)
    c' = f * c + (1 - f) * g           h' = o * squash(c')

The LSTM has a gate of its own for the candidate, ``i = gate(W_i x + U_i h + b_i)``, and
``c' = f * c + i * g``. With a projection P the recurrence sees ``h' P`` in place of h'.

Sources: Greff et al., "LSTM: A Search Space Odyssey" (arXiv 1503.04069) for the coupled input and
forget gate; Ro et al. (arXiv 2403.08100) for the scale-invariant variant; Sak et al. (arXiv
1402.1128) for the recurrent projection.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GATES = 3
"""Gates of a coupled cell, side by side in its weights: forget, output, candidate. The LSTM's input
gate comes after them."""

SMALLEST_MAXIMUM = 1e-12


def max_normalise(x: Tensor) -> Tensor:
    """Divide by the largest magnitude along the last axis: ``MaxN(x)_i = x_i / max_j |x_j|``.

    The divisor is clamped from below, so a row of zeros stays zero instead of becoming 0/0; away
    from there the result is exactly invariant to the scale of ``x``. The gradient flows through
    the maximum.
    """
    return x / x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_MAXIMUM)


def max_normalised_relu(x: Tensor) -> Tensor:
    """Return ``MaxN(relu(x))`` along the last axis; a row without positive entries gives zeros."""
    positive = x.relu()
    return positive / positive.amax(-1, keepdim=True).clamp_min(SMALLEST_MAXIMUM)


@dataclass(frozen=True)
class Activations:
    """What distinguishes the cells."""

    gate: Callable[[Tensor], Tensor]
    squash: Callable[[Tensor], Tensor]
    gates: int = GATES
    """Number of gates; with four, the input gate is not coupled to the forget gate."""


ACTIVATIONS = {
    "cifg": Activations(gate=torch.sigmoid, squash=torch.tanh),
    "si_cifg": Activations(gate=max_normalised_relu, squash=max_normalise),
    "lstm": Activations(gate=torch.sigmoid, squash=torch.tanh, gates=4),
}


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ weight + bias`` with an optional client axis on all three.

    Args:
        x: ``[*, batch, time, in]``.
        weight: ``[*, in, out]``.
        bias: ``[*, out]``.

    Returns:
        ``[*, batch, time, out]``.
    """
    rows = x.flatten(-3, -2) @ weight
    if bias is not None:
        rows = rows + bias.unsqueeze(-2)
    result: Tensor = rows.unflatten(-2, x.shape[-3:-1])
    return result


def recurrence(
    activations: Activations,
    inputs: Tensor,
    kernel: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    projection: Tensor | None = None,
    *,
    before: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run a cell over a batch of sequences.

    Args:
        activations: Which of the cells.
        inputs: ``[*, batch, time, embedding]``, the star being an optional client axis.
        kernel: W, ``[*, embedding, gates hidden]``.
        recurrent: U, ``[*, state, gates hidden]``; the state is the hidden one or its projection.
        bias: b, ``[*, gates hidden]``.
        projection: P, ``[*, hidden, state]``; None for a state that is the hidden one.
        before: State and cell to start from; None for zeros.

    Returns:
        The states, ``[*, batch, time, state]``, and the last state and cell.
    """
    projected = dense(inputs, kernel, bias)
    sizes = recurrent.shape[-2], recurrent.shape[-1] // activations.gates
    state, cell = before or (inputs.new_zeros(*inputs.shape[:-2], size) for size in sizes)
    outputs = []
    for step in projected.unbind(-2):
        state, cell = advance(activations, step, recurrent, (state, cell), projection)
        outputs.append(state)
    return torch.stack(outputs, -2), (state, cell)


def advance(
    activations: Activations,
    projected: Tensor,
    recurrent: Tensor,
    before: tuple[Tensor, Tensor],
    projection: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one step.

    Args:
        activations: Which of the cells.
        projected: ``W x + b``, ``[*, batch, gates hidden]``.
        recurrent: As in ``recurrence``.
        before: State ``[*, batch, state]`` and cell ``[*, batch, hidden]``.
        projection: As in ``recurrence``.

    Returns:
        The next state and cell.
    """
    state, cell = before
    summed = (projected + state @ recurrent).unflatten(-1, (activations.gates, -1))
    gates = activations.gate(summed[..., :2, :])
    forget, output = gates[..., 0, :], gates[..., 1, :]
    candidate = activations.squash(summed[..., 2, :])
    if activations.gates == GATES:
        cell = torch.lerp(candidate, cell, forget)
    else:
        cell = forget * cell + activations.gate(summed[..., 3, :]) * candidate
    hidden = output * activations.squash(cell)
    return hidden if projection is None else hidden @ projection, cell
