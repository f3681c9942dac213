"""The fixed-point format of sums, and what fits into it."""

FRACTION_BITS = 36
"""Resolution 1.5e-11, far below what float32 parameters of order one can show."""

LARGEST_SUM = 2.0 ** (62 - FRACTION_BITS)


def largest_contribution(cohort_size: int) -> float:
    """Return the largest magnitude that one client's weighted update may have in an entry."""
    return LARGEST_SUM / cohort_size
