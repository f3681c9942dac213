"""Order-independent sums of updates in 64-bit fixed point.

Each client's weighted update is converted to multiples of ``2**-FRACTION_BITS``, which are then
added exactly, on nodes and between them. No sum can overflow if its total is at most
``LARGEST_SUM``, so each client's contribution is limited to ``LARGEST_SUM / cohort_size`` and
refused above it.

This module holds the part that the server needs; it compiles nothing.
"""

import numpy as np
from numpy.typing import NDArray

from fedsi.limits import FRACTION_BITS

_PART = 1 << 15
"""Entries converted at a time, so that they stay in the processor's cache."""


def decode(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values of fixed-point integers."""
    return sums * np.float64(2.0**-FRACTION_BITS)


def weighted_mean(sums: NDArray[np.int64], weight: float) -> NDArray[np.float32]:
    """Return ``sums / weight`` as floats, ``[parameters]``; the weight must not be 0."""
    result = np.empty(len(sums), np.float32)
    for first in range(0, len(sums), _PART):
        last = first + _PART
        result[first:last] = decode(sums[first:last]) / weight
    return result
