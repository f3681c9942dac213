"""The selective state space layer of Mamba-2: a linear recurrence with a scalar decay per head.

For a head with the values x_t (size p), and B_t, C_t (size n, shared by the heads), step sizes
``dt_t > 0`` and a rate ``a > 0``::

    S_t = exp(-a dt_t) S_{t-1} + dt_t B_t x_t^T                        the state, n x p, S_0 = 0
    y_t = S_t^T C_t

Written out, y is a sum over the past like linear attention with a decay (the quadratic form)::

    y_i = sum_{j <= i} exp(c_i - c_j) (C_i . B_j) dt_j x_j             c_t = -a (dt_1 + ... + dt_t)

``scan`` uses the quadratic form within chunks and the recurrence between them. A sequence of at
most ``CHUNK`` tokens is one chunk, a single token is one step of the recurrence, and time grows
linearly with the number of tokens.

Source: Dao and Gu, "Transformers are SSMs" (arXiv 2405.21060), with one group of B and C.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 64
"""Tokens of a chunk. The quadratic part of a chunk grows with its square, the passing of states
does not depend on it."""


def scan(
    values: Tensor,
    steps: Tensor,
    rates: Tensor,
    writes: Tensor,
    reads: Tensor,
    before: Tensor | None = None,
    *,
    chunk: int | None = CHUNK,
) -> tuple[Tensor, Tensor]:
    """Return the layer's outputs and its last state.

    Args:
        values: x, ``[*, batch, time, heads, p]``; the star is an optional client axis.
        steps: dt, ``[*, batch, time, heads]``.
        rates: a, ``[*, heads]``.
        writes: B, ``[*, batch, time, n]``.
        reads: C, ``[*, batch, time, n]``.
        before: The state before the first token, ``[*, batch, heads, n, p]``, or None for zeros.
        chunk: Tokens of a chunk, or None for a single chunk.

    Returns:
        ``[*, batch, time, heads, p]`` and ``[*, batch, heads, n, p]``.
    """
    weighted = values * steps.unsqueeze(-1)
    decays = -steps * rates[..., None, None, :]
    parts = [slice(None)]
    if chunk is not None and values.shape[-3] > chunk:
        parts = [slice(k, k + chunk) for k in range(0, values.shape[-3], chunk)]
    found: list[tuple[Tensor, Tensor]] = []
    for part in parts:
        found.append(
            within_chunk(
                weighted[..., part, :, :].transpose(-2, -3),
                decays[..., part, :].transpose(-1, -2).cumsum(-1),
                writes[..., part, :].unsqueeze(-3),
                reads[..., part, :].unsqueeze(-3),
                found[-1][1] if found else before,
            )
        )
    whole = torch.cat([outputs for outputs, _ in found], -2)
    return whole.transpose(-2, -3), found[-1][1]


def within_chunk(
    weighted: Tensor, fading: Tensor, writes: Tensor, reads: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return a chunk's outputs in the quadratic form, and the state after it.

    Args:
        weighted: dt x, ``[*, batch, heads, time, p]``.
        fading: c from the start of the chunk, ``[*, batch, heads, time]``.
        writes: B, ``[*, batch, 1, time, n]``.
        reads: C, ``[*, batch, 1, time, n]``.
        state: The state before the chunk, or None for zeros.

    Returns:
        ``[*, batch, heads, time, p]`` and ``[*, batch, heads, n, p]``.
    """
    outputs = quadratic(weighted, fading, writes, reads)
    to_the_end = (fading[..., -1:] - fading).exp().unsqueeze(-1)
    after = writes.transpose(-1, -2) @ (to_the_end * weighted)
    if state is not None:
        outputs = outputs + fading.exp().unsqueeze(-1) * (reads @ state)
        after = after + fading[..., -1:, None].exp() * state
    return outputs, after


def quadratic(weighted: Tensor, fading: Tensor, writes: Tensor, reads: Tensor) -> Tensor:
    """Return the outputs of the quadratic form from a state of zeros; as in ``within_chunk``."""
    places = torch.arange(fading.shape[-1], device=fading.device)
    later = places > places[:, None]
    # Masked before the exponential: differences to later tokens are positive and could overflow.
    apart = (fading.unsqueeze(-1) - fading.unsqueeze(-2)).masked_fill(later, -math.inf)
    return (reads @ writes.transpose(-1, -2) * apart.exp()) @ weighted


def causal_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve each channel with the tokens up to its own.

    Args:
        x: ``[*, batch, time, channels]``.
        weight: ``[*, width, channels]``; the last row weighs the token itself.
        bias: ``[*, channels]``.
        before: The ``width - 1`` tokens before, ``[*, batch, width - 1, channels]``, or None for
            zeros.

    Returns:
        The same shape as ``x``, and the last ``width - 1`` tokens.
    """
    width, time = weight.shape[-2], x.shape[-2]
    longer = (
        functional.pad(x, (0, 0, width - 1, 0)) if before is None else torch.cat([before, x], -2)
    )
    result = bias[..., None, None, :]
    for place in range(width):
        result = result + longer[..., place : place + time, :] * weight[..., None, None, place, :]
    return result, longer[..., time:, :]
