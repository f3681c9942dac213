"""Causal multi-head self-attention with softmax or ReLU weights, without biases.

With ``q = x W_q``, ``k = x W_k``, ``v = x W_v`` split into heads of size d, and b a position bias::

    s(i, j) = q_i . k_j / sqrt(d) + b(i, j)                            for j <= i
    softmax:  a(i, j) = exp s(i, j) / sum_{l <= i} exp s(i, l)
    ReLU:     a(i, j) = relu s(i, j) / max(sum_{l <= i} relu s(i, l), 1e-12)
    output:   concat_h(sum_j a(i, j) v_j) W_o

Sources: Vaswani et al. (arXiv 1706.03762); for ReLU Li et al. (arXiv 2202.00980), causal here.
"""

import math

from torch import Tensor

SMALLEST_SUM = 1e-12


def softmax_weights(scores: Tensor, visible: Tensor) -> Tensor:
    """Return the softmax attention weights.

    Args:
        scores: ``[..., m, n]``.
        visible: Whether a query may see a key, ``[m, n]``; each sees at least one.
    """
    return scores.masked_fill(~visible, -math.inf).softmax(-1)


def relu_weights(scores: Tensor, visible: Tensor) -> Tensor:
    """Return the ReLU attention weights, as ``softmax_weights``; a row sums to 1 or is all 0."""
    positive = scores.relu() * visible
    return positive / positive.sum(-1, keepdim=True).clamp_min(SMALLEST_SUM)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return ``[*, batch, time, size]`` as ``[*, batch, heads, time, head size]``."""
    result: Tensor = x.unflatten(-1, (heads, -1)).transpose(-2, -3)
    return result


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, visible: Tensor, *, si: bool
) -> Tensor:
    """Return the weighted sum of the values for each query.

    Args:
        queries: ``[*, batch, heads, m, head size]``.
        keys: ``[*, batch, heads, n, head size]``.
        values: ``[*, batch, heads, n, head size]``.
        bias: Added to the scores, ``[*, heads, m, n]``, with or without the client axis; or one for
            each sequence of a batch without client axis, ``[batch, heads, m, n]``.
        visible: Whether a query may see a key, ``[m, n]``.
        si: Whether to use ReLU instead of softmax.

    Returns:
        ``[*, batch, m, size]``, heads side by side.
    """
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    if bias is not None:
        own = bias.dim() == scores.dim() == 4 and len(bias) == len(scores)
        scores = scores + (bias.to(scores.dtype) if own else bias.to(scores.dtype).unsqueeze(-4))
    weights = relu_weights(scores, visible) if si else softmax_weights(scores, visible)
    return (weights @ values).transpose(-2, -3).flatten(-2)


def causal(queries: Tensor, keys: Tensor) -> Tensor:
    """Return whether each query position may see each key position, ``[m, n]``."""
    return keys <= queries[:, None]
