"""Sums of updates that do not depend on their order: 64-bit fixed point.

Each client's weighted update becomes integers of ``2**-FRACTION_BITS``, which are then added
exactly, on nodes and between them. With at most ``LARGEST_SUM`` in total no sum can overflow, so
each client's contribution is bounded by ``LARGEST_SUM / cohort_size`` and refused above it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.training.compiler import compiled_as_written
from fedsi.training.limits import FRACTION_BITS

CACHED = 1 << 13
"""Scalars that are checked and then added, so that adding finds them in the cache."""


@compiled_as_written
def add_update(
    start: NDArray[np.float32],
    trained: NDArray[np.float32],
    spans: NDArray[np.int64],
    weight: Any,
    limit: Any,
    sums: NDArray[np.int64],
) -> bool:
    """Add ``weight * (trained - start)`` to sums if it may be added, in one pass over memory.

    Args:
        start: The global parameters, ``[parameters]``.
        trained: The client's, ``[parameters]``.
        spans: First and one past the last of those that may differ, ``[spans, 2]``.
        weight: float32.
        limit: The largest magnitude that may be added, float32.
        sums: Fixed point, ``[parameters]``.

    Returns:
        False, with ``sums`` as it was, if an entry is above the limit or not a number.
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
        # Written so that what is not a number is refused.
        within += abs((trained[i] - start[i]) * weight) <= limit
    return within == len(start)


@compiled_as_written
def _add(start: Any, trained: Any, weight: Any, sums: Any, sign: int) -> None:
    for i in range(len(start)):
        value = np.float64((trained[i] - start[i]) * weight)
        sums[i] += sign * np.int64(np.rint(value * 2.0**FRACTION_BITS))


def decode(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values of fixed-point integers."""
    return sums * np.float64(2.0**-FRACTION_BITS)


def weighted_mean(sums: NDArray[np.int64], weight: float) -> NDArray[np.float32]:
    """Return fixed-point sums over their weight, which is not 0, in one pass over memory."""
    result = np.empty(len(sums), np.float32)
    _divide(sums, weight, result)
    return result


@compiled_as_written
def _divide(sums: Any, weight: Any, result: Any) -> None:
    for i in range(len(sums)):
        result[i] = np.float32(np.float64(sums[i]) * 2.0**-FRACTION_BITS / weight)
