"""The workload that correlated noise is optimised for: the iterates of SGD with momentum.

With learning rates eta_t, ``m_t = beta m_(t-1) + g_t`` and ``x_t = x_(t-1) + eta_t m_t``. The
iterate after t rounds is therefore ``sum_(i<=t) A_ti g_i`` with ``A_ti = sum_(i<=s<=t) eta_s
beta^(s-i)``; without momentum, at a constant rate, these are prefix sums. At a constant rate A is
Toeplitz; if C is Toeplitz too, the first column of the error matrix ``A C^-1`` determines it.
Weight decay is ignored: it changes little over the rounds that noise is correlated over.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import fftconvolve, lfilter

from fedsi.plan import Plan

SAMPLED_ROUNDS = 40
"""Number of rounds over which the error of a Toeplitz C is averaged if the learning rate
changes."""

SAMPLED_COLUMNS = 40
"""Number of columns over which the error of other matrices is averaged."""


@dataclass(frozen=True)
class Workload:
    """The workload matrix A."""

    factors: tuple[float, ...]
    """eta_t of each round, relative to the learning rate."""
    momentum: float
    """The momentum beta."""

    @property
    def rounds(self) -> int:
        """The number of rows and columns of A."""
        return len(self.factors)

    @property
    def is_toeplitz(self) -> bool:
        """Whether the learning rate is constant."""
        return len(set(self.factors)) <= 1

    def matrix(self) -> NDArray[np.float64]:
        """Return A, ``[rounds, rounds]``."""
        return np.stack([self._row(last) for last in range(self.rounds)])

    def _row(self, last: int) -> NDArray[np.float64]:
        """Return row ``last``, from 0: sums of eta, discounted by momentum."""
        row = np.zeros(self.rounds)
        backwards = lfilter([1.0], [1.0, -self.momentum], self.factors[last::-1])
        row[: last + 1] = backwards[::-1]
        return row

    def mean_squared_error(self, inverse: NDArray[np.float64]) -> float:
        """Return the mean over rounds of the iterates' variances.

        Args:
            inverse: The first column of C^-1 for a Toeplitz C, ``[rounds]``.
        """
        if self.is_toeplitz:
            column = error_column(inverse, self.momentum)
            return float(np.sum(np.arange(self.rounds, 0, -1) * column**2)) / self.rounds
        transformed, inside = _sampled_rows(self)
        size = 2 * (transformed.shape[1] - 1)
        errors = irfft(transformed * rfft(inverse, size), size)[:, : self.rounds]
        return float(np.sum((errors * inside) ** 2)) / len(inside)

    def scaled_errors(
        self, inverse: NDArray[np.float64], scales: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Return the mean over rounds of the iterates' variances, and the last one's.

        The mean is estimated from some columns of the iterates' noise.

        Args:
            inverse: The first column of a Toeplitz matrix, ``[rounds]``. A round's noise is a row
                of that matrix times independent noise, times the round's scale.
            scales: Scales of the rounds, ``[rounds]``.
        """
        rounds = self.rounds
        count = min(SAMPLED_COLUMNS, rounds)
        padded = np.concatenate([np.zeros(rounds), inverse])
        firsts = ((np.arange(count) + 0.5) * rounds / count).astype(np.int64).tolist()
        noise = np.stack([padded[rounds - first : 2 * rounds - first] for first in firsts]) * scales
        if self.momentum:
            noise = lfilter([1.0], [1.0, -self.momentum], noise)
        iterates = np.cumsum(noise * self.factors, axis=1)
        row = fftconvolve(self._last_row * scales[::-1], inverse)[:rounds]
        return float(np.vdot(iterates, iterates)) / count, float(row @ row)

    @cached_property
    def _last_row(self) -> NDArray[np.float64]:
        """The last row of A, reversed."""
        return self._row(self.rounds - 1)[::-1]

    def coarser(self, rounds: int) -> "Workload":
        """Return the workload with the same course in fewer rounds."""
        steps = self.rounds / rounds
        middles = (np.arange(rounds) + 0.5) * steps - 0.5
        factors = np.interp(middles, np.arange(self.rounds), self.factors)
        return Workload(tuple(factors.tolist()), self.momentum**steps)


def workload_of(plan: Plan) -> Workload:
    """Return the workload of a plan."""
    return Workload(tuple(plan.schedule.factors(plan.rounds).tolist()), plan.momentum)


def coefficients(rounds: int, momentum: float) -> NDArray[np.float64]:
    """Return the first column of A at a constant learning rate, ``[rounds]``."""
    return np.cumsum(momentum ** np.arange(rounds, dtype=np.float64))


def error_column(inverse: NDArray[np.float64], momentum: float) -> NDArray[np.float64]:
    """Return the first column of ``A C^-1``, given that of C^-1; both ``[rounds]``.

    The learning rate is constant.
    """
    column: NDArray[np.float64] = lfilter([1.0], [1.0, -momentum], np.cumsum(inverse))
    return column


@lru_cache(maxsize=4)
def _sampled_rows(workload: Workload) -> tuple[NDArray[np.complex128], NDArray[np.bool_]]:
    """Return the transforms of sampled rows of A, reversed from the diagonal, and their extents.

    As power series, row t of ``A C^-1``, reversed too, is the product of such a row and the column
    of C^-1, up to power t. The rows are the middles of equally long spans of rounds.
    """
    rounds = workload.rounds
    count = min(SAMPLED_ROUNDS, rounds)
    lasts = ((np.arange(count) + 0.5) * rounds / count).astype(np.int64)
    rows = np.zeros((count, rounds))
    for row, last in zip(rows, lasts.tolist(), strict=True):
        row[: last + 1] = workload._row(last)[last::-1]
    size = next_fast_len(2 * rounds, real=True)
    size += size % 2
    return rfft(rows, size), np.arange(rounds) <= lasts[:, None]
