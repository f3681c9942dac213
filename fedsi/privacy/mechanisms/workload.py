"""What correlated noise is optimised for: the error of the iterates of SGD with momentum.

The iterate after t rounds holds ``sum_(i<=t) a_(t-i) g_i`` with ``a_k = 1 + beta + .. + beta^k``:
prefix sums without momentum. A is the Toeplitz matrix of these coefficients. With a Toeplitz C too,
the error matrix ``A C^-1`` is Toeplitz, and its first column says all.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter


def coefficients(rounds: int, momentum: float) -> NDArray[np.float64]:
    """Return the first column of A, ``[rounds]``."""
    return np.cumsum(momentum ** np.arange(rounds, dtype=np.float64))


def error_column(inverse: NDArray[np.float64], momentum: float) -> NDArray[np.float64]:
    """Return the first column of ``A C^-1``, given that of C^-1; both ``[rounds]``."""
    column: NDArray[np.float64] = lfilter([1.0], [1.0, -momentum], np.cumsum(inverse))
    return column


def mean_squared_error(column: NDArray[np.float64]) -> float:
    """Return the mean over rounds of the iterates' variances, for a column of ``A C^-1``."""
    rounds = len(column)
    return float(np.sum(np.arange(rounds, 0, -1) * column**2)) / rounds
