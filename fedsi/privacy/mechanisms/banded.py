"""Banded matrix factorisation (arXiv 2306.08153).

C has ``bands`` diagonals and columns of norm at most 1. Participations at least ``bands`` rounds
apart select columns that share no row, so k of them have a norm of at most ``sqrt(k)``. If the
clients are cut into at least as many groups as bands, which take turns, and cohorts are Poisson
samples of a group, the participations are separate Poisson-sampled Gaussian mechanisms (theorem 4).

``X = C^T C`` minimises ``tr(A^T A X^-1)`` subject to ones on the diagonal and zeros from the
``bands``-th off-diagonal on; the problem is convex. Solving it takes long for more than
``MOST_OPTIMISED_ROUNDS`` rounds. It is then solved for fewer rounds and bands with the same course
of learning rates. The ratio of the optimum to the best banded Toeplitz matrix (arXiv 2405.15913) is
smooth in the round and in the band, and is interpolated. Any interpolated matrix is a valid C once
its columns have norm 1.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_banded
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from scipy.signal import fftconvolve, lfilter
from torch import Tensor

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.plan import Plan
from fedsi.privacy.mechanisms.kind import APART, Accounting, Kind
from fedsi.privacy.mechanisms.mechanism import Fresh, NoiseState
from fedsi.privacy.mechanisms.workload import (
    Workload,
    coefficients,
    error_column,
    workload_of,
)

MOST_OPTIMISED_ROUNDS = 250
"""Up to this many rounds every entry of C is optimised; beyond it, C is interpolated."""

FEWEST_BANDS = 5
"""If fewer bands than this are left to optimise, C is the best banded Toeplitz matrix, which is one
per cent worse."""

_STEPS = 150
"""Steps of L-BFGS; further steps gain less than 0.1 %."""


@dataclass(frozen=True)
class Banded:
    """Banded noise; see ``Mechanism``.

    The state is the noise of the last ``bands - 1`` rounds, each of the size of a sum.
    """

    sensitivities: NDArray[np.float64]
    """Sensitivities of the first 1, 2, ... rounds, ``[rounds]``; of one turn with cyclic groups."""
    diagonals: NDArray[np.float64]
    """``[rounds, bands]``; entry ``[t, j]`` is ``C[t, t - j]``."""
    slack: float = 0.0

    @property
    def sensitivity(self) -> float:
        """The sensitivity of all rounds."""
        return float(self.sensitivities[-1])

    def sensitivity_after(self, rounds: int) -> float:
        """Return the sensitivity of the first rounds."""
        return float(self.sensitivities[rounds - 1])

    def initial_state(self, size: int) -> NoiseState:
        """Return zeros, ``[bands - 1, size]``; no array for one band."""
        earlier = self.diagonals.shape[1] - 1
        return {"earlier": np.zeros((earlier, size), np.float32)} if earlier else {}

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[Any]:
        """Return ``y_t = (z_t - sum_j C[t, t - j] y_(t-j)) / C[t, t]``, where y is the noise.

        The noise of round t replaces the oldest, in row ``t mod (bands - 1)``.
        """
        row = self.diagonals[round_number - 1]
        value = fresh(0).copy()
        if "earlier" not in state:
            value /= row[0]
            return value
        earlier = state["earlier"]
        count = len(earlier)
        weights = np.empty(count, earlier.dtype)
        weights[(round_number - np.arange(1, count + 1)) % count] = row[1:]
        # einsum does not use BLAS, whose sums depend on the number of threads.
        value -= np.einsum("j,ji->i", weights, earlier)
        value /= row[0]
        earlier[round_number % count] = value
        return value

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the row norms, from the first rows and columns of C^-1."""
        bands = min(self.diagonals.shape[1], rounds)
        lower = np.zeros((bands, rounds))
        for j in range(bands):
            lower[j, : rounds - j] = self.diagonals[j:rounds, j]
        inverse = solve_banded((bands - 1, 0), lower, np.eye(rounds))
        norms: NDArray[np.float64] = np.linalg.norm(inverse, axis=1)
        return norms


def build(plan: Plan) -> Banded:
    """Return the mechanism optimised for the plan's rounds, bands and learning rates.

    Raises:
        UserError: There are more bands than rounds between participations.
    """
    cyclic = plan.sampling == "cyclic"
    key, apart = ("groups", plan.groups) if cyclic else ("min_separation", plan.min_separation)
    bands = apart if plan.bands is None else plan.bands
    if bands > apart:
        raise UserError(
            f"privacy.bands={bands} is more than server.{key}={apart}, "
            "which its accounting rests on; lower the one or raise the other"
        )
    diagonals = optimised_diagonals(workload_of(plan), min(bands, plan.rounds))
    # Turns of a group are accounted for one by one, and each moves the release by at most 1.
    sensitivities = np.ones(plan.rounds) if cyclic else banded_sensitivities(plan, diagonals)
    return Banded(sensitivities, diagonals)


def banded_sensitivities(plan: Plan, diagonals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest norms of C x over the first 1, 2, ... rounds, ``[rounds]``.

    A client's participations share no row, so the squared norms of their columns add up. All
    participations but the last are complete before it and have columns of norm 1. After round t the
    last one, in round t - j, contributes the first j + 1 entries of its column.

    Args:
        plan: Bounds a client's participations and their separation.
        diagonals: Same as in ``Banded``.
    """
    rounds, bands = diagonals.shape
    last_round = np.arange(rounds)[:, None] - np.arange(bands)
    columns = np.cumsum(_by_column(diagonals) ** 2, axis=1)
    most = np.array([plan.participations_within(number) for number in range(1, rounds + 1)])
    before = np.minimum(most[:, None] - 1, last_round // plan.min_separation)
    squares = before + columns[np.maximum(last_round, 0), np.arange(bands)]
    largest = np.where(last_round < 0, 0.0, squares).max(axis=1)
    # Rounded, because columns have norm 1 only up to the last bits, which could make epsilon fall.
    sensitivities: NDArray[np.float64] = np.sqrt(np.round(largest, 12))
    return sensitivities


@lru_cache(maxsize=16)
def optimised_diagonals(workload: Workload, bands: int) -> NDArray[np.float64]:
    """Return the diagonals of the best C, ``[rounds, bands]``."""
    rounds = workload.rounds
    first = toeplitz_column(rounds, bands, workload.momentum)
    if rounds <= MOST_OPTIMISED_ROUNDS:
        columns = _optimised_columns(workload, first)
    else:
        columns = _interpolated_ratios(workload, bands) * first
    there = np.arange(bands) < np.arange(rounds, 0, -1)[:, None]
    columns = np.where(there, columns, 0.0)
    return _by_row(columns / np.linalg.norm(columns, axis=1, keepdims=True))


def _interpolated_ratios(workload: Workload, bands: int) -> NDArray[np.float64]:
    """Return the ratio of the best C to the best Toeplitz one, by columns, ``[rounds, bands]``."""
    rounds, fewer = workload.rounds, MOST_OPTIMISED_ROUNDS
    few = round(bands * fewer / rounds)
    if few < FEWEST_BANDS:
        return np.ones((rounds, bands))
    coarse = workload.coarser(fewer)
    first = toeplitz_column(fewer, few, coarse.momentum)
    places = np.meshgrid(
        (np.arange(rounds) + 0.5) * fewer / rounds - 0.5,
        np.arange(bands) * (few - 1) / (bands - 1),
        indexing="ij",
    )
    ratios: NDArray[np.float64] = map_coordinates(
        _optimised_columns(coarse, first) / first, places, order=1, mode="nearest"
    )
    return ratios


def _optimised_columns(workload: Workload, first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best C by columns, ``[rounds, bands]``; entry ``[i, j]`` is ``C[i + j, i]``.

    An entry outside of C repeats the last one inside on the same diagonal.

    Args:
        workload: The workload to optimise for.
        first: First column of the Toeplitz matrix to start from, ``[bands]``.
    """
    rounds, bands = workload.rounds, len(first)
    start = np.zeros((rounds, rounds))
    for j in range(bands):
        np.fill_diagonal(start[j:], first[j])
    with _one_thread():
        lower = torch.from_numpy(start / np.linalg.norm(start, axis=0))
        factor = factorised(optimised_square(lower.T @ lower, bands, workload)).numpy()
    columns = np.empty((rounds, bands))
    for j in range(bands):
        columns[: rounds - j, j] = np.diagonal(factor, -j)
        columns[rounds - j :, j] = columns[rounds - j - 1, j]
    return columns


def _by_column(diagonals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entries by column: ``[i, j]`` is ``C[i + j, i]``, zero beyond the last row."""
    columns = np.zeros_like(diagonals)
    for j in range(diagonals.shape[1]):
        columns[: len(diagonals) - j, j] = diagonals[j:, j]
    return columns


def _by_row(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the entries by row: ``[t, j]`` is ``C[t, t - j]``, zero before the first column."""
    diagonals = np.zeros_like(columns)
    for j in range(columns.shape[1]):
        diagonals[j:, j] = columns[: len(columns) - j, j]
    return diagonals


def factorised(square: Tensor) -> Tensor:
    """Return the lower triangular C with ``C^T C = square``.

    ``C = J L^T J``, where J reverses the order and ``L L^T = J square J``. (The Cholesky factor of
    ``square`` itself is that of ``C C^T``, whose columns have other norms.)
    """
    factor: Tensor = torch.linalg.cholesky(square.flip(0, 1))
    return factor.T.flip(0, 1)


def optimised_square(start: Tensor, bands: int, workload: Workload) -> Tensor:
    """Return the best X ``[rounds, rounds]``, found by L-BFGS from a feasible start.

    With ``W = X^-1 A^T`` the objective is ``tr(A W)`` and its gradient ``-W W^T``.
    """
    rounds = len(start)
    target = torch.from_numpy(workload.matrix())
    rows, columns = np.nonzero(np.tri(rounds, k=-1) - np.tri(rounds, k=-bands))
    entries = start[rows, columns]
    beyond = 2 * target.square().sum().log()

    def unpacked() -> Tensor:
        square = torch.eye(rounds, dtype=torch.float64)
        square[rows, columns] = square[columns, rows] = entries
        return square

    def loss() -> Tensor:
        factor, failed = torch.linalg.cholesky_ex(unpacked())
        if failed:  # not positive definite: the line search has gone too far
            entries.grad = torch.zeros_like(entries)
            return beyond
        solved = torch.cholesky_solve(target.T, factor)
        error = (target.T * solved).sum()
        entries.grad = (solved @ solved.T)[rows, columns] * (-2 / error)
        return error.log()

    if bands > 1:
        search = torch.optim.LBFGS([entries], max_iter=_STEPS, line_search_fn="strong_wolfe")
        search.step(loss)
    return unpacked()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread, so that the last bits do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def toeplitz_column(rounds: int, bands: int, momentum: float) -> NDArray[np.float64]:
    """Return the first column of the best banded Toeplitz C, with norm 1, ``[bands]``.

    Let m be the first column of ``A C^-1``, ``m = a / c`` as power series. The objective is ``|c|^2
    sum_k (rounds - k) m_k^2``, and ``dm = -(m / c) dc``. The start is the square root of the prefix
    sums, ``1 / sqrt(1 - x)``, truncated.
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


def _vectors(experiment: Experiment) -> int:
    """Return the number of earlier rounds whose noise is kept."""
    server = experiment.server
    return (experiment.privacy.bands or server.min_separation or server.groups or 1) - 1


KIND = Kind(
    build,
    samplings={"shuffled": Accounting.KEPT_APART, "cyclic": Accounting.TAKING_TURNS},
    otherwise=APART,
    keys=frozenset({"bands"}),
    is_optimised=True,
    vectors=_vectors,
)
