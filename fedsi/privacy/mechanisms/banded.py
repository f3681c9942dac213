"""Banded matrix factorisation (arXiv 2306.08153).

C has ``bands`` diagonals and columns of norm at most 1. Participations at least ``bands`` rounds
apart then fall on columns that share no row, so k of them have norm ``sqrt(k)`` at most.

``X = C^T C`` minimises ``tr(A^T A X^-1)`` with ones on the diagonal and zeros from the
``bands``-th off-diagonal on, which is convex. Beyond ``MOST_DENSE_ROUNDS`` rounds, where that takes
minutes, C is the best banded Toeplitz matrix instead (as in arXiv 2405.15913), whose error at 1000
rounds is 1 to 3 % larger.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_banded, toeplitz
from scipy.optimize import minimize
from scipy.signal import fftconvolve, lfilter
from torch import Tensor

from fedsi.errors import UserError
from fedsi.privacy.mechanisms.mechanism import Fresh, State
from fedsi.privacy.mechanisms.workload import coefficients, error_column
from fedsi.privacy.plan import Plan

MOST_DENSE_ROUNDS = 1000
"""Up to here every entry of C is optimised."""


@dataclass(frozen=True)
class Banded:
    """Banded noise; see ``Mechanism``.

    The state is the noise of the last ``bands - 1`` rounds: that many times the size of a sum.
    """

    sensitivity: float
    diagonals: NDArray[np.float64]
    """``[rounds, bands]``; entry ``[t, j]`` is ``C[t, t - j]``."""

    def initial_state(self, size: int) -> State:
        """Return zeros, ``[bands - 1, size]``; nothing for one band."""
        earlier = self.diagonals.shape[1] - 1
        return {"earlier": np.zeros((earlier, size), np.float32)} if earlier else {}

    def noise(self, state: State, round_number: int, fresh: Fresh) -> NDArray[np.float32]:
        """Return ``y_t = (z_t - sum_j C[t, t - j] y_(t-j)) / C[t, t]``, where y is the noise.

        Round t's noise stands in row ``t mod (bands - 1)``, in place of the oldest.
        """
        row = self.diagonals[round_number - 1]
        value = fresh(0).copy()
        if not state:
            value /= row[0]
            return value
        earlier = state["earlier"]
        count = len(earlier)
        weights = np.empty(count, earlier.dtype)
        weights[(round_number - np.arange(1, count + 1)) % count] = row[1:]
        # einsum without BLAS, whose sums depend on the number of threads.
        value -= np.einsum("j,ji->i", weights, earlier)
        value /= row[0]
        earlier[round_number % count] = value
        return value

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the norms, from the first rows and columns of C^-1."""
        bands = min(self.diagonals.shape[1], rounds)
        lower = np.zeros((bands, rounds))
        for j in range(bands):
            lower[j, : rounds - j] = self.diagonals[j:rounds, j]
        inverse = solve_banded((bands - 1, 0), lower, np.eye(rounds))
        norms: NDArray[np.float64] = np.linalg.norm(inverse, axis=1)
        return norms


def build(plan: Plan) -> Banded:
    """Return the mechanism optimised for the plan's rounds, bands and momentum.

    Raises:
        UserError: There are more bands than rounds between participations.
    """
    bands = plan.min_separation if plan.bands is None else plan.bands
    if bands > plan.min_separation:
        raise UserError(
            f"privacy.bands={bands} is more than server.min_separation={plan.min_separation}, "
            "which its accounting rests on; lower the one or raise the other"
        )
    participations = min(plan.most_participations, math.ceil(plan.rounds / plan.min_separation))
    return Banded(
        math.sqrt(participations),
        optimised(plan.rounds, min(bands, plan.rounds), plan.momentum),
    )


@lru_cache(maxsize=16)
def optimised(rounds: int, bands: int, momentum: float) -> NDArray[np.float64]:
    """Return the diagonals of the best C, ``[rounds, bands]``."""
    first = toeplitz_column(rounds, bands, momentum)
    if rounds > MOST_DENSE_ROUNDS:
        return np.broadcast_to(first, (rounds, bands))
    start = torch.from_numpy(np.tril(toeplitz(np.pad(first, (0, rounds - bands)))))
    with _one_thread():
        start /= start.norm(dim=0)
        factor = factorised(optimised_square(start.T @ start, bands, momentum)).numpy()
    diagonals = np.zeros((rounds, bands))
    for j in range(bands):
        diagonals[j:, j] = np.diagonal(factor, -j)
    return diagonals


def factorised(square: Tensor) -> Tensor:
    """Return the lower triangular C with ``C^T C = square``.

    ``C = J L^T J``, where J reverses the order and ``L L^T = J square J``. (The Cholesky factor of
    ``square`` itself is that of ``C C^T``, whose columns have other norms.)
    """
    factor: Tensor = torch.linalg.cholesky(square.flip(0, 1))
    return factor.T.flip(0, 1)


def optimised_square(start: Tensor, bands: int, momentum: float) -> Tensor:
    """Return the best X ``[rounds, rounds]``, found by L-BFGS from a feasible start.

    With ``W = X^-1 A^T`` the objective is ``tr(A W)`` and its gradient ``-W W^T``.
    """
    rounds = len(start)
    workload = torch.from_numpy(np.tril(toeplitz(coefficients(rounds, momentum))))
    rows, columns = np.nonzero(np.tri(rounds, k=-1) - np.tri(rounds, k=-bands))
    entries = start[rows, columns]
    beyond = 2 * workload.square().sum().log()

    def unpacked() -> Tensor:
        square = torch.eye(rounds, dtype=torch.float64)
        square[rows, columns] = square[columns, rows] = entries
        return square

    def loss() -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(unpacked())
        if failed:  # not positive definite: the line search has gone too far
            entries.grad = torch.zeros_like(entries)
            return beyond
        solved = torch.cholesky_solve(workload.T, factor)
        error = (workload.T * solved).sum()
        entries.grad = (solved @ solved.T)[rows, columns] * (-2 / error)
        return error.log()

    if bands > 1:
        search = torch.optim.LBFGS([entries], max_iter=60, line_search_fn="strong_wolfe")
        search.step(loss)
    return unpacked()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, so that the last bits do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def toeplitz_column(rounds: int, bands: int, momentum: float) -> NDArray[np.float64]:
    """Return the first column of the best banded Toeplitz C, with norm 1, ``[bands]``.

    With ``m = a / c`` as power series, m being the first column of ``A C^-1``, the objective is
    ``|c|^2 sum_k (rounds - k) m_k^2`` and ``dm = -(m / c) dc``. The start is the square root of the
    prefix sums, ``1 / sqrt(1 - x)``, cut.
    """
    remaining = np.arange(rounds, 0, -1.0)
    impulse = np.eye(1, rounds)[0]
    beyond = 2 * math.log(np.sum(remaining * coefficients(rounds, momentum) ** 2)) + 1

    def loss(tail: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        first = np.concatenate([[1.0], tail])
        inverse = lfilter([1.0], first, impulse)
        if not np.all(np.abs(inverse) < 1e50):  # the line search has gone where C^-1 explodes
            return beyond, np.zeros_like(tail)
        errors = error_column(inverse, momentum)
        error = float(np.sum(remaining * errors**2))
        slopes = lfilter([1.0], first, errors)
        by_tail = -fftconvolve((2 * remaining * errors)[::-1], slopes)[rounds - bands : rounds - 1]
        norm = float(first @ first)
        return math.log(error * norm), by_tail[::-1] / error + 2 * tail / norm

    k = np.arange(1, bands)
    start = np.cumprod((2 * k - 1) / (2 * k))
    tail = minimize(loss, start, jac=True, method="L-BFGS-B").x if bands > 1 else start
    first: NDArray[np.float64] = np.concatenate([[1.0], tail])
    return first / np.linalg.norm(first)
