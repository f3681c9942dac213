"""Clipping of updates before they enter the fixed-point sum.

The clip norm bounds the integers that a client adds, not only the floats they are made from: the
floats are scaled slightly more than needed, which covers the rounding of the norm, and are then
rounded towards zero, which makes no entry larger. So adding or removing a client changes the sum by
at most the clip norm, exactly.

An update with an entry that is not finite is refused, because ``min(1, S / NaN)`` would let it
through.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.compiler import compiled
from fedsi.limits import FRACTION_BITS

MARGIN = 1e-9
"""Relative margin; larger than the rounding error of a sum of up to 10^9 squares, summed in
parts."""

_PART = 1 << 13


def layer_ends(shapes: Sequence[tuple[int, ...]], clipping: str) -> NDArray[np.int64]:
    """Return the ends, in the flat vector, of the parts that are clipped separately.

    Args:
        shapes: Shapes of the parameters, in order.
        clipping: ``per_layer`` for each parameter on its own, anything else for all together.

    Returns:
        ``[layers]``.
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return ends if clipping == "per_layer" else ends[-1:]


@compiled
def add_clipped(
    start: NDArray[np.float32],
    trained: NDArray[np.float32],
    spans: NDArray[np.int64],
    ends: NDArray[np.int64],
    clip_norm: float,
    sums: NDArray[np.int64],
) -> tuple[float, bool]:
    """Clip ``trained - start`` and add it to ``sums``.

    Each of L layers is clipped to ``clip_norm / sqrt(L)`` (McMahan et al., arXiv 1710.06963,
    section 3.2), so their joint norm is at most ``clip_norm``.

    Args:
        start: The global parameters, ``[parameters]``.
        trained: The client's parameters, ``[parameters]``.
        spans: Spans of the parameters that may differ, in order, as first and one past last,
            ``[spans, 2]``; no others are read.
        ends: The result of ``layer_ends``.
        clip_norm: The clip norm S.
        sums: Fixed point, ``[parameters]``.

    Returns:
        The norm of the update before clipping, and whether any layer was clipped. If the update is
        not finite, the norm is not finite and ``sums`` is unchanged.
    """
    norm, factors, clipped = _factors(start, trained, spans, ends, clip_norm)
    if math.isfinite(norm):
        for k in range(len(ends)):
            first = ends[k - 1] if k else 0
            for span in range(len(spans)):
                a, b = max(spans[span, 0], first), min(spans[span, 1], ends[k])
                if a < b:
                    _add(start[a:b], trained[a:b], factors[k], sums[a:b])
    return norm, clipped


@compiled
def move_clipped(
    start: NDArray[np.float32],
    trained: NDArray[np.float32],
    spans: NDArray[np.int64],
    ends: NDArray[np.int64],
    clip_norm: float,
    sums: NDArray[np.int64],
) -> tuple[float, bool]:
    """Do the same as ``add_clipped`` and, in the same pass, set ``trained`` back to ``start``.

    A pass that only copies would read both from memory again. If the update is not finite,
    ``trained`` is unchanged.
    """
    norm, factors, clipped = _factors(start, trained, spans, ends, clip_norm)
    if math.isfinite(norm):
        for k in range(len(ends)):
            first = ends[k - 1] if k else 0
            for span in range(len(spans)):
                a, b = max(spans[span, 0], first), min(spans[span, 1], ends[k])
                if a < b:
                    _move(start[a:b], trained[a:b], factors[k], sums[a:b])
    return norm, clipped


def squared_norm(start: NDArray[np.float32], trained: NDArray[np.float32]) -> float:
    """Return the squared L2 norm of ``trained - start``."""
    return sum(
        _sum_of_squares(start[first : first + _PART], trained[first : first + _PART])
        for first in range(0, len(start), _PART)
    )


@compiled
def _factors(
    start: Any, trained: Any, spans: Any, ends: Any, clip_norm: float
) -> tuple[float, Any, bool]:
    """Return the norm, the factor of each layer, and whether any layer is clipped."""
    squares = np.zeros(len(ends))
    first = span = 0
    for k in range(len(ends)):
        while first < ends[k]:
            last = min(first + _PART, ends[k])
            while span < len(spans) and spans[span, 1] <= first:
                span += 1
            # A part without a span would add 0. The others are read as a whole, so that the order
            # of their sum, and with it the norm's last bit, does not depend on the spans.
            if span < len(spans) and spans[span, 0] < last:
                squares[k] += _sum_of_squares(start[first:last], trained[first:last])
            first = last
    limit = clip_norm / math.sqrt(len(ends))
    factors = np.ones(len(ends))
    clipped = False
    for k in range(len(ends)):
        if math.sqrt(squares[k]) * (1.0 + MARGIN) > limit:
            factors[k] = limit / math.sqrt(squares[k]) * (1.0 - MARGIN)
            clipped = True
    norm = math.sqrt(squares.sum())
    return norm, factors, clipped and math.isfinite(norm)


@compiled
def _sum_of_squares(start: Any, trained: Any) -> float:
    total = 0.0
    for i in range(len(start)):
        value = np.float64(trained[i] - start[i])
        total += value * value
    return total


@compiled
def _add(start: Any, trained: Any, factor: float, sums: Any) -> None:
    for i in range(len(start)):
        # A conversion to an integer rounds towards zero.
        sums[i] += np.int64(np.float64(trained[i] - start[i]) * factor * 2.0**FRACTION_BITS)


@compiled
def _move(start: Any, trained: Any, factor: float, sums: Any) -> None:
    for i in range(len(start)):
        before = start[i]
        sums[i] += np.int64(np.float64(trained[i] - before) * factor * 2.0**FRACTION_BITS)
        trained[i] = before
