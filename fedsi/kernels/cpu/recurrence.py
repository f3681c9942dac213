"""The recurrences of CIFG and SI-CIFG over a packed batch: compiled forward and backward loops.

A step of the recurrence multiplies the few running states with a kernel far larger than they are.
Libraries read the kernel once for every pair of rows or so; here more rows share each read, and the
activations are applied while the step's numbers are in the cache. The equations are in
``fedsi.models.recurrent``; the gradients are written by hand. The state that is fed back is h or,
with a recurrent projection, ``h P``.

Arrays are float32 (float64 in the tests). ``gates`` is ``[positions, 3 hidden]``: f, o and g side
by side. All others are ``[positions, hidden]`` unless stated. ``sizes`` holds the number of
sequences running at each time step. Kernels may be pairs of bfloat16, see
``fedsi.kernels.cpu.tiles``.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from fedsi.compiler import compiled
from fedsi.kernels.cpu.bits import from_ordered, pair, to_ordered
from fedsi.kernels.cpu.tiles import (
    COLUMNS,
    INNER_COLUMNS,
    INNER_ROWS,
    ROWS,
    inner_tile,
    is_wide,
    update_tile,
)
from fedsi.models.recurrent import SMALLEST_MAXIMUM

Array = NDArray[Any]


@compiled
def cifg_forward(
    sizes: Array,
    gates: Array,
    kernels: tuple[Array, Array],
    cells: Array,
    squashed: Array,
    hidden: Array,
    state: Array,
) -> None:
    """Run the forward pass of the CIFG.

    Args:
        sizes: ``[time]``.
        gates: ``W x + b`` on entry, the gates after their activations on return.
        kernels: U in panels, ``[panels, state, COLUMNS]``, and P in panels (no panels without a
            recurrent projection). Panels of pairs are half as deep.
        cells: Output: c.
        squashed: Output: tanh(c).
        hidden: Output: h.
        state: Output: ``h P``, ``[positions, state]``; without a projection, ``hidden`` itself.
    """
    size = hidden.shape[1]
    kernel, projection = kernels
    nothing = np.zeros(size, hidden.dtype)
    start = before = 0
    for t in range(len(sizes)):
        n = sizes[t]
        if t:
            _add_product(gates[start : start + n], state[before : before + n], kernel)
        for i in range(n):
            f, o, g = _three(gates[start + i], size)
            kept = cells[before + i] if t else nothing
            c, s, h = cells[start + i], squashed[start + i], hidden[start + i]
            for j in range(size):
                f[j] = _sigmoid(f[j])
                o[j] = _sigmoid(o[j])
                g[j] = _tanh(g[j])
                c[j] = g[j] + f[j] * (kept[j] - g[j])
                s[j] = _tanh(c[j])
                h[j] = o[j] * s[j]
        if len(projection):
            state[start : start + n] = 0
            _add_product(state[start : start + n], hidden[start : start + n], projection)
        before, start = start, start + n


@compiled
def cifg_backward(
    sizes: Array,
    gates: Array,
    kernels: tuple[Array, Array],
    cells: Array,
    squashed: Array,
    grads: tuple[Array, Array],
    grad_gates: Array,
) -> None:
    """Run the backward pass of the CIFG.

    Args:
        sizes: ``[time]``.
        gates: Output of ``cifg_forward``, like ``cells`` and ``squashed``.
        kernels: U, ``[state, 3 hidden]``, and P, ``[hidden, state]`` (no rows without a recurrent
            projection). Matrices of pairs are half as wide.
        cells: c.
        squashed: tanh(c).
        grads: Gradient with respect to the state: that of the layer above on entry, the total on
            return. And output: gradient with respect to h, the same array without a projection.
        grad_gates: Output: gradient with respect to the gates before their activations.
    """
    kernel, projection = kernels
    grad_state, grad = grads
    size = grad.shape[1]
    one = grad.dtype.type(1)
    nothing = np.zeros(size, grad.dtype)
    grad_cells = np.zeros((sizes[0], size), grad.dtype)
    start = after = len(grad)
    running = 0
    for t in range(len(sizes) - 1, -1, -1):
        n = sizes[t]
        start -= n
        _add_inner_product(
            grad_state[start : start + running], grad_gates[after : after + running], kernel
        )
        if len(projection):
            grad[start : start + n] = 0
            _add_inner_product(grad[start : start + n], grad_state[start : start + n], projection)
        before = start - sizes[t - 1] if t else start
        for i in range(n):
            f, o, g = _three(gates[start + i], size)
            df, do, dg = _three(grad_gates[start + i], size)
            kept = cells[before + i] if t else nothing
            s, dh, dc = squashed[start + i], grad[start + i], grad_cells[i]
            for j in range(size):
                d = dc[j] + dh[j] * o[j] * (one - s[j] * s[j])
                do[j] = dh[j] * s[j] * o[j] * (one - o[j])
                df[j] = d * (kept[j] - g[j]) * f[j] * (one - f[j])
                dg[j] = d * (one - f[j]) * (one - g[j] * g[j])
                dc[j] = d * f[j]
        after, running = start, n


@compiled
def si_cifg_forward(
    sizes: Array,
    gates: Array,
    kernels: tuple[Array, Array],
    cells: Array,
    squashed: Array,
    hidden: Array,
    state: Array,
    maxima: Array,
) -> None:
    """Run the forward pass of the SI-CIFG; arguments as in ``cifg_forward``, and ``maxima``.

    Outputs that differ: ``squashed`` is c / max |c|; ``maxima`` holds the divisors of f, o, g and
    c, ``[positions, 4]``.
    """
    size = hidden.shape[1]
    kernel, projection = kernels
    nothing = np.zeros(size, hidden.dtype)
    start = before = 0
    for t in range(len(sizes)):
        n = sizes[t]
        if t:
            _add_product(gates[start : start + n], state[before : before + n], kernel)
        for i in range(n):
            f, o, g = _three(gates[start + i], size)
            kept = cells[before + i] if t else nothing
            c, s, h, m = cells[start + i], squashed[start + i], hidden[start + i], maxima[start + i]
            _rectify(f)
            _rectify(o)
            m[0] = _divide_by_largest(f, f)
            m[1] = _divide_by_largest(o, o)
            m[2] = _divide_by_largest(g, g)
            for j in range(size):
                c[j] = g[j] + f[j] * (kept[j] - g[j])
            m[3] = _divide_by_largest(c, s)
            for j in range(size):
                h[j] = o[j] * s[j]
        if len(projection):
            state[start : start + n] = 0
            _add_product(state[start : start + n], hidden[start : start + n], projection)
        before, start = start, start + n


@compiled
def si_cifg_backward(
    sizes: Array,
    gates: Array,
    kernels: tuple[Array, Array],
    cells: Array,
    squashed: Array,
    maxima: Array,
    grads: tuple[Array, Array],
    grad_gates: Array,
) -> None:
    """Run the backward pass of the SI-CIFG; arguments as in ``cifg_backward``, and ``maxima``."""
    kernel, projection = kernels
    grad_state, grad = grads
    size = grad.shape[1]
    one = grad.dtype.type(1)
    nothing = np.zeros(size, grad.dtype)
    grad_cells = np.zeros((sizes[0], size), grad.dtype)
    grad_squashed = np.zeros(size, grad.dtype)
    start = after = len(grad)
    running = 0
    for t in range(len(sizes) - 1, -1, -1):
        n = sizes[t]
        start -= n
        _add_inner_product(
            grad_state[start : start + running], grad_gates[after : after + running], kernel
        )
        if len(projection):
            grad[start : start + n] = 0
            _add_inner_product(grad[start : start + n], grad_state[start : start + n], projection)
        before = start - sizes[t - 1] if t else start
        for i in range(n):
            f, o, g = _three(gates[start + i], size)
            df, do, dg = _three(grad_gates[start + i], size)
            kept = cells[before + i] if t else nothing
            s, m, dh, dc = squashed[start + i], maxima[start + i], grad[start + i], grad_cells[i]
            for j in range(size):
                grad_squashed[j] = dh[j] * o[j]
                do[j] = dh[j] * s[j]
            _undo_division(grad_squashed, s, m[3])
            for j in range(size):
                d = dc[j] + grad_squashed[j]
                df[j] = d * (kept[j] - g[j])
                dg[j] = d * (one - f[j])
                dc[j] = d * f[j]
            _undo_division(df, f, m[0])
            _undo_division(do, o, m[1])
            _undo_division(dg, g, m[2])
            _undo_rectify(df, f)
            _undo_rectify(do, o)
        after, running = start, n


@compiled
def _three(row: Array, size: int) -> tuple[Array, Array, Array]:
    return row[:size], row[size : 2 * size], row[2 * size :]


@compiled
def _rectify(row: Array) -> None:
    for j in range(len(row)):
        row[j] = row[j] * (row[j] > 0)


@compiled
def _undo_rectify(grad: Array, result: Array) -> None:
    for j in range(len(grad)):
        grad[j] = grad[j] * (result[j] > 0)


@compiled
def _divide_by_largest(row: Array, out: Array) -> Any:
    """Write ``row / m`` for m = max |row|, clamped from below, and return m."""
    ordered = to_ordered(row.dtype.type(SMALLEST_MAXIMUM))
    for j in range(len(row)):
        ordered = max(ordered, to_ordered(abs(row[j])))
    largest = from_ordered(ordered)
    for j in range(len(row)):
        out[j] = row[j] / largest
    return largest


@compiled
def _undo_division(grad: Array, result: Array, largest: Any) -> None:
    """Turn the gradient with respect to y into that of x, for ``y = x / m``, ``m = max |x|``.

    It is ``(dy - t (dy . y)) / m``, where t is the sign of y at its maximum and 0 elsewhere; the
    largest entry divided by itself is exactly 1. Tied maxima, common when a kept cell and a new
    candidate are both 1, share the gradient, as under autograd.
    """
    one = grad.dtype.type(1)
    inner = grad.dtype.type(0)
    ties = grad.dtype.type(0)
    for j in range(len(grad)):
        inner += grad[j] * result[j]
        ties += abs(result[j]) == one
    inner /= max(ties, one)
    inverse = one / largest
    for j in range(len(grad)):
        peak = result[j] * (abs(result[j]) == one)
        grad[j] = (grad[j] - peak * inner) * inverse


@compiled
def _add_product(out: Array, rows: Array, panels: Array) -> None:
    """Add ``rows @ kernel`` to ``out``, reading a panel of the kernel once for ``ROWS`` rows."""
    factors = _factors(rows, panels)
    one = out.dtype.type(1)
    tile = np.zeros((ROWS, COLUMNS), out.dtype)
    for k in range(len(panels)):
        part = out[:, k * COLUMNS : (k + 1) * COLUMNS]
        width = part.shape[1]
        for i in range(0, len(out), ROWS):
            n = min(ROWS, len(out) - i)
            if width == COLUMNS:
                update_tile(part[i:], factors[i:], panels[k], n, 1, one, one)
            else:
                update_tile(tile, factors[i:], panels[k], n, is_wide(width), out.dtype.type(0), one)
                for r in range(n):
                    for c in range(width):
                        part[i + r, c] += tile[r, c]


@compiled
def _add_inner_product(out: Array, rows: Array, kernel: Array) -> None:
    """Add ``rows @ kernel.T`` to ``out``, reading the kernel once for ``INNER_ROWS`` rows."""
    factors = _factors(rows, kernel)
    tile = np.empty((INNER_ROWS, INNER_COLUMNS), out.dtype)
    k = 0
    while k < len(kernel):
        width = INNER_COLUMNS if k + INNER_COLUMNS <= len(kernel) else 1
        for i in range(0, len(out), INNER_ROWS):
            n = min(INNER_ROWS, len(out) - i)
            inner_tile(tile, factors[i:], kernel[k:], n, width > 1)
            for r in range(n):
                for c in range(width):
                    out[i + r, k + c] += tile[r, c]
        k += width


def _factors(rows: Any, kernel: Any) -> Any:
    """Return rows in the number format of the kernel: pairs of bfloat16 if it has pairs."""
    return rows, kernel


@overload(_factors)
def _choose_factors(rows: Any, kernel: Any) -> Any:
    return _paired if kernel.dtype == types.uint32 else _unchanged


def _unchanged(rows: Any, kernel: Any) -> Any:
    return rows


def _paired(rows: Any, kernel: Any) -> Any:
    size = rows.shape[1]
    pairs = np.zeros((len(rows), (size + 1) // 2), np.uint32)
    for i in range(len(rows)):
        row, target = rows[i], pairs[i]
        for k in range(size // 2):
            target[k] = pair(row[2 * k], row[2 * k + 1])
        if size % 2:
            target[size // 2] = pair(row[size - 1], np.float32(0))
    return pairs


def _tanh(x: Any) -> Any:
    """Compute the hyperbolic tangent."""
    return math.tanh(x)


@overload(_tanh)
def _choose_tanh(x: Any) -> Any:
    return _tanh_32 if x == types.float32 else _tanh_64


def _tanh_64(x: Any) -> Any:
    return math.tanh(x)


def _tanh_32(x: Any) -> Any:
    """Compute tanh without a call or a branch, within a few units in the last place.

    This is the rational function of Eigen and XLA. Beyond its bound the result is 1 in float32.
    """
    one = np.float32
    x = max(min(x, one(7.90531110763549805)), one(-7.90531110763549805))
    y = x * x
    p = one(-2.76076847742355e-16) * y + one(2.00018790482477e-13)
    p = p * y + one(-8.60467152213735e-11)
    p = p * y + one(5.12229709037114e-08)
    p = p * y + one(1.48572235717979e-05)
    p = p * y + one(6.37261928875436e-04)
    p = p * y + one(4.89352455891786e-03)
    q = one(1.19825839466702e-06) * y + one(1.18534705686654e-04)
    q = q * y + one(2.26843463243900e-03)
    q = q * y + one(4.89352518554385e-03)
    return x * p / q


@compiled
def _sigmoid(x: Any) -> Any:
    half = type(x)(0.5)
    return half + half * _tanh(half * x)
