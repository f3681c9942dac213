"""Buffered linear Toeplitz noise (BLT, arXiv 2404.16706 and 2408.08868), column-normalised.

T is Toeplitz with ``c_0 = 1`` and ``c_k = sum_j w_j t_j^(k-1)``. Its inverse needs one vector per
buffer: ``y = z - sum_j w_j S_j``, then ``S_j <- t_j S_j + y``. C is T, or T with its columns
divided by their norms, whichever has less error; a round's noise is then y times the norm of its
column. The norms fall over the rounds, because fewer rows are left: without them late rounds cost
less privacy than early ones, but have as much noise.

As a power series ``T(x) = prod_j (1 - s_j x) / (1 - t_j x)``, so T^-1 has the same form with s and
t exchanged. If ``1 > t_1 > s_1 > t_2 > .. > s_d > 0``, all weights w and ``1 - sum_j w_j / t_j``
are positive. So c is a mixture of geometric series, the last of them ``1, 0, 0, ..``; it is
non-increasing and log-convex, which ``toeplitz_sensitivities`` requires.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit, logit

from fedsi.experiment import Experiment
from fedsi.plan import Plan
from fedsi.privacy.mechanisms.kind import APART, Accounting, Kind
from fedsi.privacy.mechanisms.mechanism import Fresh, NoiseState
from fedsi.privacy.mechanisms.toeplitz import (
    column,
    column_norms,
    inverse_column,
    residues,
    toeplitz_sensitivities,
)
from fedsi.privacy.mechanisms.workload import Workload, workload_of

SMALLEST_GAIN = 0.01
"""Least relative gain in sensitivity times error for adding one more buffer."""

MOST_ADDED = 0.05
"""Largest relative increase of the mean error for less error of the last iterate. Without a limit
the last iterate would have half of the noise, and the others five times as much."""

_PENALTY = 1e4
"""Weight of the squared logarithm of the mean error beyond its limit."""

_SHARE_OF_SEPARATION = 0.3
"""1 minus the slowest decay of one of the starts of the search, in shares of 1 / separation."""


@dataclass(frozen=True)
class BufferedToeplitz:
    """Buffered linear Toeplitz noise; see ``Mechanism``. The state is one vector per buffer."""

    sensitivities: NDArray[np.float64]
    """Sensitivities of the first 1, 2, ... rounds, ``[rounds]``."""
    decays: tuple[float, ...]
    """The decays t, each exact in float32, so that the stream and the sensitivity use the same
    C."""
    weights: tuple[float, ...]
    """The weights w, each exact in float32."""
    norms: NDArray[np.float64]
    """Norms of the columns of T, rounded up to float32, or ones: ``[rounds]``."""
    slack: float = 0.0

    @property
    def sensitivity(self) -> float:
        """The sensitivity of all rounds."""
        return float(self.sensitivities[-1])

    def sensitivity_after(self, rounds: int) -> float:
        """Return the sensitivity of the first rounds."""
        return float(self.sensitivities[rounds - 1])

    def initial_state(self, size: int) -> NoiseState:
        """Return zeros, ``[buffers, size]``."""
        return {"buffers": np.zeros((len(self.decays), size), np.float32)}

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[Any]:
        """Return the next row of C^-1 Z."""
        norm = self.norms[round_number - 1].astype(state["buffers"].dtype)
        buffers = state["buffers"]
        value = fresh(0).copy()
        for buffer, decay, weight in zip(buffers, self.decays, self.weights, strict=True):
            value -= weight * buffer
            buffer *= decay  # noqa: PLW2901
        buffers += value
        value *= norm
        return value

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the row norms; a row of T^-1 is its first column, reversed and truncated."""
        first = inverse_column(np.array(self.decays), np.array(self.weights), rounds)
        norms: NDArray[np.float64] = self.norms[:rounds] * np.sqrt(np.cumsum(first**2))
        return norms


def build(plan: Plan) -> BufferedToeplitz:
    """Return the mechanism optimised for the plan's rounds, participations and learning rates."""
    shape = _Shape(workload_of(plan), plan.most_participations, plan.min_separation)
    decays, weights, is_normalised = _chosen(shape, plan.buffers, plan.objective)
    first = column(decays, weights, plan.rounds)
    norms = column_norms(first) if is_normalised else np.ones(plan.rounds)
    sensitivities = toeplitz_sensitivities(plan, first, norms)
    # Norms that are larger by a rounding are more noise for the same sensitivities.
    return BufferedToeplitz(
        sensitivities, tuple(decays.tolist()), tuple(weights.tolist()), _rounded_up(norms)
    )


@dataclass(frozen=True)
class _Shape:
    """The quantities that determine the best mechanism."""

    workload: Workload
    participations: int
    separation: int

    @property
    def rounds(self) -> int:
        """The number of rounds of the run."""
        return self.workload.rounds

    def sensitivity(self, first: NDArray[np.float64], norms: NDArray[np.float64]) -> float:
        """Return the largest norm of C x, for T's first column and the norms that divide it."""
        total = np.zeros(self.rounds)
        starts = range(0, self.rounds, self.separation)
        for start in itertools.islice(starts, self.participations):
            total[start:] += first[: self.rounds - start] / norms[start]
        return math.sqrt(np.sum(total**2))

    def log_loss(self, decays: NDArray[np.float64], zeros: NDArray[np.float64]) -> float:
        """Return the logarithm of sensitivity times root mean squared error, without norms."""
        first = column(decays, residues(decays, zeros), self.rounds)
        inverse = column(zeros, residues(zeros, decays), self.rounds)
        error = self.workload.mean_squared_error(inverse)
        return math.log(self.sensitivity(first, np.ones(self.rounds))) + math.log(error) / 2

    def log_losses(
        self, decays: NDArray[np.float64], zeros: NDArray[np.float64], is_normalised: bool
    ) -> tuple[float, float]:
        """Return the logarithms of sensitivity times error: of the mean, of the last iterate."""
        first = column(decays, residues(decays, zeros), self.rounds)
        inverse = column(zeros, residues(zeros, decays), self.rounds)
        norms = column_norms(first) if is_normalised else np.ones(self.rounds)
        largest = math.log(self.sensitivity(first, norms))
        mean, last = self.workload.scaled_errors(inverse, norms)
        return largest + math.log(mean) / 2, largest + math.log(last) / 2


@lru_cache(maxsize=64)
def _chosen(
    shape: _Shape, buffers: int | None, objective: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Return decays, weights, and whether to divide columns by their norms: what is best.

    The decays of the best T are also nearly those of the best normalised one. For the last iterate
    the search goes on from them, with a penalty for the mean beyond its limit.
    """
    decays, zeros = optimised_buffers(shape, buffers)
    with_norms, without = (shape.log_losses(decays, zeros, choice) for choice in (True, False))
    if objective == "mean":
        return *_rounded(decays, zeros), with_norms[0] <= without[0]
    most = min(with_norms[0], without[0]) + math.log1p(MOST_ADDED)
    bounds = [(-20, 20)] * (2 * len(decays))

    def search(is_normalised: bool) -> OptimizeResult:
        def limited(ratios: NDArray[np.float64]) -> float:
            mean, last = shape.log_losses(*_poles(ratios), is_normalised)
            return last + _PENALTY * max(0.0, mean - most) ** 2

        start = np.clip(_ratios(decays, zeros), -20, 20)
        return minimize(
            limited, start, method="L-BFGS-B", jac="3-point", bounds=bounds, options={"maxiter": 25}
        )

    results = {choice: search(choice) for choice in (True, False)}
    is_normalised = bool(results[True].fun <= results[False].fun)
    return *_rounded(*_poles(results[is_normalised].x)), is_normalised


@lru_cache(maxsize=64)
def optimised_buffers(
    shape: _Shape, buffers: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return t and s of the T with the least mean error, each ``[buffers]``.

    Args:
        shape: The quantities to optimise for.
        buffers: Number of buffers, or None to add buffers while each gains ``SMALLEST_GAIN``.
    """
    loss, *found = _best(shape, buffers or 1)
    more = itertools.count(2) if buffers is None else ()
    for count in more:
        less, *candidate = _best(shape, count)
        if less > loss + math.log1p(-SMALLEST_GAIN):
            break
        loss, found = less, candidate
    return found[0], found[1]


def _best(shape: _Shape, buffers: int) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the log loss, t and s of the best T with a number of buffers.

    The bounds of the free parameters keep the order strict in float64. The search starts from a
    slowest decay over the rounds and from one over the separation: from the first alone it can end
    where two buffers are the same, which is no better than one buffer.
    """

    def loss(ratios: NDArray[np.float64]) -> float:
        return shape.log_loss(*_poles(ratios))

    def search(slowest: float) -> OptimizeResult:
        spread = 1 - np.geomspace(slowest, 0.7, 2 * buffers)
        start = _ratios(spread[::2], spread[1::2])
        bounds = [(-20, 20)] * len(start)
        return minimize(loss, start, method="L-BFGS-B", jac="3-point", bounds=bounds)

    starts = 1 / (shape.rounds + 1), _SHARE_OF_SEPARATION / shape.separation
    result = min(map(search, starts), key=lambda found: float(found.fun))
    return float(result.fun), *_poles(result.x)


def _ratios(decays: NDArray[np.float64], zeros: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the free parameters: the logits of ``t_1, s_1 / t_1, t_2 / s_1, ..``."""
    poles = np.stack([decays, zeros], axis=1).ravel()
    ratios: NDArray[np.float64] = logit(np.concatenate([poles[:1], poles[1:] / poles[:-1]]))
    return ratios


def _poles(ratios: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return t and s of some free parameters; any have the order of t and s."""
    poles = np.cumprod(expit(ratios))
    return poles[::2], poles[1::2]


def _rounded(
    decays: NDArray[np.float64], zeros: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return decays and weights that are exact in float32, with ``sum_j w_j / t_j <= 1``."""
    rounded = decays.astype(np.float32).astype(float)
    weights = np.where(rounded > 0, residues(decays, zeros), 0.0).astype(np.float32).astype(float)
    total = np.sum(weights / np.where(rounded > 0, rounded, 1.0))
    return rounded, weights if total <= 1 else -_rounded_up(-weights / total)


def _rounded_up(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the next numbers that are exact in float32."""
    nearest = numbers.astype(np.float32)
    above = np.nextafter(nearest, np.float32(np.inf))
    return np.where(nearest < numbers, above, nearest).astype(float)


def _vectors(experiment: Experiment) -> int:
    """Return the number of buffers, or its minimum if it is optimised."""
    return experiment.privacy.buffers or 1


KIND = Kind(
    build,
    samplings={"shuffled": Accounting.KEPT_APART},
    otherwise=APART,
    keys=frozenset({"buffers", "objective"}),
    is_optimised=True,
    vectors=_vectors,
)
