"""The CIFG cell and its scale-invariant variant: one recurrence, two pairs of activations.

With ``gate`` and ``squash`` standing for sigmoid and tanh (CIFG), or for their max-normalised
replacements (SI-CIFG), a step is::

    f = gate(W_f x + U_f h + b_f)      o = gate(W_o x + U_o h + b_o)
    g = squash(W_g x + U_g h + b_g)
    c' = f * c + (1 - f) * g           h' = o * squash(c')

Sources: Greff et al., "LSTM: A Search Space Odyssey" (arXiv 1503.04069) for the coupled input and
forget gate; Ro et al. (arXiv 2403.08100) for the scale-invariant variant.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

GATES = 3
"""Gates of a cell, side by side in its weights: forget, output, candidate."""

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
    """What distinguishes the two cells."""

    gate: Callable[[Tensor], Tensor]
    squash: Callable[[Tensor], Tensor]


ACTIVATIONS = {
    "cifg": Activations(gate=torch.sigmoid, squash=torch.tanh),
    "si_cifg": Activations(gate=max_normalised_relu, squash=max_normalise),
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
    activations: Activations, inputs: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor
) -> Tensor:
    """Run a cell over a batch of sequences from a zero state.

    Args:
        activations: Which of the two cells.
        inputs: ``[*, batch, time, embedding]``, the star being an optional client axis.
        kernel: W, ``[*, embedding, 3 hidden]``.
        recurrent: U, ``[*, hidden, 3 hidden]``.
        bias: b, ``[*, 3 hidden]``.

    Returns:
        The hidden states h, ``[*, batch, time, hidden]``.
    """
    hidden_size = recurrent.shape[-2]
    projected = dense(inputs, kernel, bias).unflatten(-1, (GATES, hidden_size))
    hidden = cell = inputs.new_zeros(*inputs.shape[:-2], hidden_size)
    outputs = []
    for step in projected.unbind(-3):
        before = step + (hidden @ recurrent).unflatten(-1, (GATES, hidden_size))
        gates = activations.gate(before[..., :2, :])
        forget, output = gates[..., 0, :], gates[..., 1, :]
        candidate = activations.squash(before[..., 2, :])
        cell = torch.lerp(candidate, cell, forget)
        hidden = output * activations.squash(cell)
        outputs.append(hidden)
    return torch.stack(outputs, -2)
