"""The fixed-point format of sums and its limits."""

FRACTION_BITS = 36
"""Fractional bits: a resolution of 1.5e-11, far finer than float32 parameters of order one."""

LARGEST_SUM = 2.0 ** (62 - FRACTION_BITS)


def largest_contribution(cohort_size: int) -> float:
    """Return the largest magnitude of an entry of one client's weighted update."""
    return LARGEST_SUM / cohort_size
