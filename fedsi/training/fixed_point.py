"""Sums of updates that do not depend on their order: 64-bit fixed point.

A block's float32 sum becomes integers of ``2**-FRACTION_BITS``; blocks and nodes are then added as
integers, which is exact. With at most ``LARGEST_SUM`` in total no sum can overflow, so each
client's contribution is bounded by ``LARGEST_SUM / cohort_size`` and refused above it.
"""

import torch
from torch import Tensor

FRACTION_BITS = 36
"""Resolution 1.5e-11, far below what float32 parameters of order one can show."""

CACHED = 1 << 15
"""Scalars that are worked on at a time, so that passes over them find them in the cache."""

LARGEST_SUM = 2.0 ** (62 - FRACTION_BITS)


def largest_contribution(cohort_size: int) -> float:
    """Return the largest magnitude that one client's weighted update may have in an entry."""
    return LARGEST_SUM / cohort_size


def encode(values: Tensor) -> Tensor:
    """Return the nearest multiples of the resolution as int64; magnitudes below ``2**27``."""
    return (values.double() * 2.0**FRACTION_BITS).round_().to(torch.int64)


def add_encoded(values: Tensor, sums: Tensor) -> None:
    """Add ``encode(values)`` to sums in place, a part that the processor's cache holds at a time.

    Args:
        values: float32 ``[parameters]``.
        sums: int64 ``[parameters]``.
    """
    for part, into in zip(values.split(CACHED), sums.split(CACHED), strict=True):
        into.add_(encode(part))


def decode(sums: Tensor) -> Tensor:
    """Return the values of fixed-point integers as float64."""
    return sums.double() * 2.0**-FRACTION_BITS
