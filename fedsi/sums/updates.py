"""Compiled passes that add one client's update to a fixed-point sum."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.compiler import compiled_as_written
from fedsi.limits import FRACTION_BITS

CACHED = 1 << 13
"""Scalars that are checked and then added at a time, so that they are still in the cache."""


@compiled_as_written
def add_update(
    start: NDArray[np.float32],
    trained: NDArray[np.float32],
    spans: NDArray[np.int64],
    weight: Any,
    limit: Any,
    sums: NDArray[np.int64],
) -> bool:
    """Add ``weight * (trained - start)`` to ``sums`` in one pass, if it is within the limit.

    Args:
        start: The global parameters, ``[parameters]``.
        trained: The client's parameters, ``[parameters]``.
        spans: Spans of the parameters that may differ, as first and one past last, ``[spans, 2]``.
        weight: float32.
        limit: Largest magnitude that may be added, float32.
        sums: Fixed point, ``[parameters]``.

    Returns:
        False if an entry is above the limit or not a number; ``sums`` is then unchanged.
    """
    for k in range(len(spans)):
        for first in range(spans[k, 0], spans[k, 1], CACHED):
            last = min(first + CACHED, spans[k, 1])
            if not _all_within(start[first:last], trained[first:last], weight, limit):
                _take_back(start, trained, spans[:k], weight, sums)
                a = spans[k, 0]
                _add(start[a:first], trained[a:first], weight, sums[a:first], -1)
                return False
            _add(start[first:last], trained[first:last], weight, sums[first:last], 1)
    return True


@compiled_as_written
def copy_spans(source: Any, spans: NDArray[np.int64], target: Any) -> None:
    """Copy the parameters of some spans."""
    for k in range(len(spans)):
        _copy(source[spans[k, 0] : spans[k, 1]], target[spans[k, 0] : spans[k, 1]])


@compiled_as_written
def _copy(source: Any, target: Any) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@compiled_as_written
def _take_back(start: Any, trained: Any, spans: Any, weight: Any, sums: Any) -> None:
    for k in range(len(spans)):
        a, b = spans[k]
        _add(start[a:b], trained[a:b], weight, sums[a:b], -1)


@compiled_as_written
def _all_within(start: Any, trained: Any, weight: Any, limit: Any) -> bool:
    within = 0
    for i in range(len(start)):
        # Written as a comparison that is false for NaN, so that NaN is refused.
        within += abs((trained[i] - start[i]) * weight) <= limit
    return within == len(start)


@compiled_as_written
def _add(start: Any, trained: Any, weight: Any, sums: Any, sign: int) -> None:
    for i in range(len(start)):
        value = np.float64((trained[i] - start[i]) * weight)
        sums[i] += sign * np.int64(np.rint(value * 2.0**FRACTION_BITS))
