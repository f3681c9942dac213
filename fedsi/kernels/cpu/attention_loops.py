"""Causal self-attention over packed sentences: compiled forward and backward loops.

The equations are in ``fedsi.models.attention``; the gradients are written by hand. The matrix
products of one sentence and head are small, so they are computed in tiles whose scores stay in the
cache, and scores of keys after a query are neither computed nor stored. They use the precision of
the arrays, even where the large products of a step use bfloat16.

Arrays are float32 (float64 in the tests). ``starts`` ``[sentences + 1]`` holds the first position
of each sentence and, last, the number of positions. ``projected`` ``[positions, 3 size]`` holds
queries, keys and values side by side, each with its heads side by side. The last axis of
``weights`` ``[heads, positions, width]`` is a multiple of ``COLUMNS`` and at least as long as the
longest sentence.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.compiler import compiled
from fedsi.kernels.cpu.bits import without_gaps
from fedsi.kernels.cpu.softmax import exponential
from fedsi.kernels.cpu.tiles import COLUMNS, ROWS, is_wide, update_tile
from fedsi.models.attention import SMALLEST_SUM

Array = NDArray[Any]


@compiled
def attend_forward(
    starts: Array,
    projected: Array,
    bias: Array,
    by_relu: bool,
    weights: Array,
    sums: Array,
    gathered: Array,
) -> None:
    """Run the forward pass of the attention.

    Args:
        starts: See the module docstring.
        projected: See the module docstring.
        bias: Added to the scores, ``[heads, longest, longest]``; ``[heads, 0, 0]`` for no bias.
        by_relu: Whether scores go through ReLU instead of softmax.
        weights: Output: the attention weights, zero for keys after their query.
        sums: Output: the divisors of the weights (sums of exponentials or of positive scores),
            ``[heads, positions]``.
        gathered: Output: the weighted sums of the values, ``[positions, size]``.
    """
    size = gathered.shape[1]
    width = size // len(weights)
    rate = gathered.dtype.type(1 / math.sqrt(width))
    one = gathered.dtype.type(1)
    crossed = np.empty((weights.shape[2] // COLUMNS, width, COLUMNS), gathered.dtype)
    panels = np.empty((-(-width // COLUMNS), weights.shape[2], COLUMNS), gathered.dtype)
    for sentence in range(len(starts) - 1):
        a, b = starts[sentence], starts[sentence + 1]
        for head in range(len(weights)):
            queries, keys, values = _three(projected[a:b], head * width, width, size)
            rows = weights[head, a:b]
            _pack_crossed(keys, crossed)
            _product(rows, queries, crossed, rate)
            _add_bias(rows, bias[head])
            for i in range(b - a):
                row = without_gaps(rows[i])
                if by_relu:
                    sums[head, a + i] = _rectify(row, i + 1)
                else:
                    sums[head, a + i] = _exponentiate(row, i + 1)
            _pack(values, panels)
            _gather(gathered[a:b, head * width : (head + 1) * width], rows, panels, one)


@compiled
def attend_backward(
    starts: Array,
    projected: Array,
    by_relu: bool,
    weights: Array,
    sums: Array,
    grad: Array,
    grad_projected: Array,
    grad_bias: Array,
) -> None:
    """Run the backward pass of the attention.

    Args:
        starts: See the module docstring.
        projected: See the module docstring.
        by_relu: Same as in ``attend_forward``, which writes ``weights`` and ``sums``.
        weights: The attention weights.
        sums: Their divisors.
        grad: Gradient with respect to ``gathered``, ``[positions, size]``.
        grad_projected: Output: gradient with respect to queries, keys and values.
        grad_bias: Accumulated: gradient with respect to the bias; ``[heads, 0, 0]`` if not needed.
    """
    size = grad.shape[1]
    width = size // len(weights)
    rate = grad.dtype.type(1 / math.sqrt(width))
    one = grad.dtype.type(1)
    longest = weights.shape[2]
    crossed = np.empty((longest // COLUMNS, width, COLUMNS), grad.dtype)
    panels = np.empty((-(-width // COLUMNS), longest, COLUMNS), grad.dtype)
    scores = np.empty((longest, longest), grad.dtype)
    for sentence in range(len(starts) - 1):
        a, b = starts[sentence], starts[sentence + 1]
        for head in range(len(weights)):
            queries, keys, values = _three(projected[a:b], head * width, width, size)
            to_queries, to_keys, to_values = _three(grad_projected[a:b], head * width, width, size)
            above = grad[a:b, head * width : (head + 1) * width]
            rows = weights[head, a:b]
            _pack(above, panels)
            _gather_crossed(to_values, rows, panels, one)
            _pack_crossed(values, crossed)
            _product(scores[: b - a], above, crossed, one)
            for i in range(b - a):
                row, weight = without_gaps(scores[i]), without_gaps(rows[i])
                if by_relu:
                    _undo_rectify(row, weight, i + 1, sums[head, a + i])
                else:
                    _undo_exponentiate(row, weight, i + 1)
            _add_corner(grad_bias[head], scores, b - a)
            _pack(keys, panels)
            _gather(to_queries, scores[: b - a], panels, rate)
            _pack(queries, panels)
            _gather_crossed(to_keys, scores[: b - a], panels, rate)


@compiled
def turn(rows: Array, places: Array, turns: Array, direction: Any) -> None:
    """Rotate pairs of neighbouring numbers in place.

    Args:
        rows: Heads side by side, ``[positions, heads * head size]``.
        places: Row of ``turns`` for each position, ``[positions]``.
        turns: Cosine and sine of each pair's angle, ``[longest, head size]``.
        direction: 1 to rotate; -1 to rotate back, which is the gradient. Same type as ``rows``.
    """
    width = turns.shape[1]
    for i in range(len(rows)):
        angles, row = turns[places[i]], rows[i]
        for first in range(0, len(row), width):
            for k in range(0, width, 2):
                cosine, sine = angles[k], angles[k + 1] * direction
                x, y = row[first + k], row[first + k + 1]
                row[first + k] = x * cosine - y * sine
                row[first + k + 1] = x * sine + y * cosine


@compiled
def _three(rows: Array, first: int, width: int, size: int) -> tuple[Array, Array, Array]:
    """Return a head's queries, keys and values."""
    last = first + width
    return (
        rows[:, first:last],
        rows[:, size + first : size + last],
        rows[:, 2 * size + first : 2 * size + last],
    )


@compiled
def _add_bias(scores: Array, bias: Array) -> None:
    if len(bias):
        for i in range(len(scores)):
            row, added = without_gaps(scores[i]), bias[i]
            for j in range(i + 1):
                row[j] += added[j]


@compiled
def _add_corner(total: Array, scores: Array, length: int) -> None:
    if len(total):
        for i in range(length):
            row, added = total[i], without_gaps(scores[i])
            for j in range(i + 1):
                row[j] += added[j]


@compiled
def _exponentiate(row: Array, seen: int) -> Any:
    """Turn a row of scores into weights, 0 from ``seen`` on; return their divisor."""
    most = row[0]
    for j in range(1, seen):
        most = max(most, row[j])
    total = row.dtype.type(0)
    for j in range(seen):
        row[j] = exponential(row[j] - most)
        total += row[j]
    _finish(row, seen, total)
    return total


@compiled
def _rectify(row: Array, seen: int) -> Any:
    """Do the same as ``_exponentiate``, with ReLU in place of the exponential."""
    total = row.dtype.type(0)
    for j in range(seen):
        row[j] = row[j] * (row[j] > 0)
        total += row[j]
    total = max(total, row.dtype.type(SMALLEST_SUM))
    _finish(row, seen, total)
    return total


@compiled
def _finish(row: Array, seen: int, total: Any) -> None:
    inverse = row.dtype.type(1) / total
    for j in range(seen):
        row[j] *= inverse
    for j in range(seen, len(row)):
        row[j] = 0


@compiled
def _undo_exponentiate(grad: Array, weights: Array, seen: int) -> None:
    """Turn the gradient with respect to weights into that of scores, 0 from ``seen`` on."""
    inner = grad.dtype.type(0)
    for j in range(seen):
        inner += grad[j] * weights[j]
    for j in range(seen):
        grad[j] = weights[j] * (grad[j] - inner)
    for j in range(seen, len(grad)):
        grad[j] = 0


@compiled
def _undo_rectify(grad: Array, weights: Array, seen: int, total: Any) -> None:
    """Do the same as ``_undo_exponentiate`` for ReLU; a clamped divisor has no gradient."""
    inner = grad.dtype.type(0)
    if total > grad.dtype.type(SMALLEST_SUM):
        for j in range(seen):
            inner += grad[j] * weights[j]
    inverse = grad.dtype.type(1) / total
    for j in range(seen):
        grad[j] = (grad[j] - inner) * inverse * (weights[j] > 0)
    for j in range(seen, len(grad)):
        grad[j] = 0


@compiled
def _pack(matrix: Array, panels: Array) -> None:
    """Copy ``[rows, columns]`` into panels of ``COLUMNS`` columns, the last padded with zeros."""
    for k in range(len(panels)):
        part = matrix[:, k * COLUMNS : (k + 1) * COLUMNS]
        for i in range(len(matrix)):
            row, target = without_gaps(part[i]), panels[k, i]
            for j in range(len(row)):
                target[j] = row[j]
            for j in range(len(row), COLUMNS):
                target[j] = 0


@compiled
def _pack_crossed(matrix: Array, panels: Array) -> None:
    """Copy the transpose into as many panels of ``COLUMNS`` columns as it fills."""
    for k in range(-(-len(matrix) // COLUMNS)):
        part = matrix[k * COLUMNS : (k + 1) * COLUMNS]
        for j in range(matrix.shape[1]):
            target = panels[k, j]
            for i in range(len(part)):
                target[i] = part[i, j]
            for i in range(len(part), COLUMNS):
                target[i] = 0


@compiled
def _product(out: Array, rows: Array, crossed: Array, rate: Any) -> None:
    """Write ``rate * rows @ crossed``, skipping tiles above the diagonal."""
    nothing = out.dtype.type(0)
    for i in range(0, len(rows), ROWS):
        n = min(ROWS, len(rows) - i)
        for k in range((i + n - 1) // COLUMNS + 1):
            tile = out[i:, k * COLUMNS : (k + 1) * COLUMNS]
            wide = is_wide(i + n - k * COLUMNS)
            update_tile(tile, rows[i:], crossed[k], n, wide, nothing, rate)


@compiled
def _gather(out: Array, weights: Array, panels: Array, rate: Any) -> None:
    """Write ``rate * weights @ panels`` for weights that are zero above the diagonal."""
    tile = np.empty((ROWS, COLUMNS), out.dtype)
    nothing = out.dtype.type(0)
    for i in range(0, len(out), ROWS):
        n = min(ROWS, len(out) - i)
        for k in range(len(panels)):
            part = out[i : i + n, k * COLUMNS : (k + 1) * COLUMNS]
            wide = is_wide(part.shape[1])
            update_tile(tile, weights[i:], panels[k, : i + n], n, wide, nothing, rate)
            _copy(part, tile)


@compiled
def _gather_crossed(out: Array, weights: Array, panels: Array, rate: Any) -> None:
    """Write ``rate * weights.T @ panels`` for weights that are zero above the diagonal."""
    tile = np.empty((ROWS, COLUMNS), out.dtype)
    nothing = out.dtype.type(0)
    length = len(out)
    for j in range(0, length, ROWS):
        n = min(ROWS, length - j)
        crossed = weights[j:length, j:].T
        for k in range(len(panels)):
            part = out[j : j + n, k * COLUMNS : (k + 1) * COLUMNS]
            wide = is_wide(part.shape[1])
            update_tile(tile, crossed, panels[k, j:length], n, wide, nothing, rate)
            _copy(part, tile)


@compiled
def _copy(out: Array, tile: Array) -> None:
    for r in range(len(out)):
        row, source = without_gaps(out[r]), tile[r]
        for c in range(len(row)):
            row[c] = source[c]
