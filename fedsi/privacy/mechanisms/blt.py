"""Buffered linear Toeplitz noise (BLT, arXiv 2404.16706 and 2408.08868).

C is Toeplitz with ``c_0 = 1`` and ``c_k = sum_j w_j t_j^(k-1)``. Its inverse needs one vector per
buffer: ``y = z - sum_j w_j S_j``, then ``S_j <- t_j S_j + y``, where y is the round's noise.

As a power series ``C(x) = prod_j (1 - s_j x) / (1 - t_j x)``, so C^-1 has the same form with s and
t exchanged. If ``1 > t_1 > s_1 > t_2 > .. > s_d > 0``, all weights w are positive and ``c`` is
positive and non-increasing. A client's worst participations are then as many as allowed, exactly
the minimum separation apart, from the first round on (arXiv 2408.08868).
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
from fedsi.privacy.mechanisms.workload import Workload, workload_of

SMALLEST_GAIN = 0.01
"""Least relative gain in sensitivity times error for adding one more buffer."""


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

    def noise(self, state: NoiseState, round_number: int, fresh: Fresh) -> NDArray[Any]:  # noqa: ARG002
        """Return the next row of C^-1 Z."""
        buffers = state["buffers"]
        value = fresh(0).copy()
        for buffer, decay, weight in zip(buffers, self.decays, self.weights, strict=True):
            value -= weight * buffer
            buffer *= decay  # noqa: PLW2901
        buffers += value
        return value

    def row_norms(self, rounds: int) -> NDArray[np.float64]:
        """Return the row norms; a row of C^-1 is its first column, reversed and truncated."""
        column = inverse_column(np.array(self.decays), np.array(self.weights), rounds)
        return np.sqrt(np.cumsum(column**2))


def build(plan: Plan) -> BufferedToeplitz:
    """Return the mechanism optimised for the plan's rounds, participations and learning rates."""
    shape = _Shape(workload_of(plan), plan.most_participations, plan.min_separation)
    decays, weights = optimised_buffers(shape, plan.buffers)
    sensitivities = toeplitz_sensitivities(plan, column(decays, weights, plan.rounds))
    return BufferedToeplitz(sensitivities, tuple(decays.tolist()), tuple(weights.tolist()))


def toeplitz_sensitivities(plan: Plan, first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest norms of C x over the first 1, 2, ... rounds, ``[rounds]``.

    The first rows and columns of C form a matrix of the same kind, with the same worst
    participations.

    Args:
        plan: Bounds a client's participations and their separation.
        first: The first column of C, ``[rounds]``.
    """
    rounds = len(first)
    most = np.array([plan.participations_within(number) for number in range(1, rounds + 1)])
    total, squares = np.zeros(rounds), np.zeros(rounds)
    for count, start in enumerate(range(0, rounds, plan.min_separation), 1):
        if count > most[-1]:
            break
        total[start:] += first[: rounds - start]
        squares[most == count] = np.cumsum(total**2)[most == count]
    return np.sqrt(squares)


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

    def sensitivity(self, first: NDArray[np.float64]) -> float:
        """Return the largest norm of C x, for the first column of C, ``[rounds]``."""
        total = np.zeros(self.rounds)
        starts = range(0, self.rounds, self.separation)
        for start in itertools.islice(starts, self.participations):
            total[start:] += first[: self.rounds - start]
        return math.sqrt(np.sum(total**2))

    def log_loss(self, decays: NDArray[np.float64], zeros: NDArray[np.float64]) -> float:
        """Return the logarithm of sensitivity times root mean squared error."""
        first = column(decays, residues(decays, zeros), self.rounds)
        inverse = column(zeros, residues(zeros, decays), self.rounds)
        error = self.workload.mean_squared_error(inverse)
        return math.log(self.sensitivity(first)) + math.log(error) / 2


@lru_cache(maxsize=64)
def optimised_buffers(
    shape: _Shape, buffers: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return decays and weights, each ``[buffers]``, of the best mechanism.

    Args:
        shape: The quantities to optimise for.
        buffers: Number of buffers, or None to add buffers while each gains ``SMALLEST_GAIN``.
    """
    if buffers is not None:
        return _rounded(*_best(shape, buffers)[1:])
    loss, decays, zeros = _best(shape, 1)
    for more in itertools.count(2):
        less, *candidate = _best(shape, more)
        if less > loss + math.log1p(-SMALLEST_GAIN):
            break
        loss, (decays, zeros) = less, candidate
    return _rounded(decays, zeros)


def residues(poles: NDArray[np.float64], zeros: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return w with ``prod (1 - zeros x) / (1 - poles x) = 1 + sum_j w_j x / (1 - poles_j x)``."""
    apart = poles[:, None] - poles
    np.fill_diagonal(apart, 1.0)
    weights: NDArray[np.float64] = np.prod((poles[:, None] - zeros) / apart, axis=1)
    return weights


def column(
    decays: NDArray[np.float64], weights: NDArray[np.float64], rounds: int
) -> NDArray[np.float64]:
    """Return ``1, w . 1, w . t, w . t^2, ...``, ``[rounds]``."""
    powers = decays[:, None] ** np.arange(rounds - 1, dtype=np.float64)
    return np.concatenate([[1.0], np.sum(weights[:, None] * powers, axis=0)])


def inverse_column(
    decays: NDArray[np.float64], weights: NDArray[np.float64], rounds: int
) -> NDArray[np.float64]:
    """Return the first column of C^-1, ``[rounds]``, by the recurrence of the stream."""
    found = np.zeros(rounds)
    buffers = np.zeros_like(decays)
    for k in range(rounds):
        found[k] = float(k == 0) - weights @ buffers
        buffers = decays * buffers + found[k]
    return found


def _best(shape: _Shape, buffers: int) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the log loss, t and s of the best mechanism with a number of buffers.

    The free parameters are the logits of ``t_1, s_1 / t_1, t_2 / s_1, ..``, which preserves the
    order; their bounds keep it strict in float64. The search starts from a slowest decay over the
    rounds and from one over the separation: from the first alone it can end where two buffers are
    the same, which is no better than one buffer.
    """

    def loss(ratios: NDArray[np.float64]) -> float:
        poles = np.cumprod(expit(ratios))
        return shape.log_loss(poles[::2], poles[1::2])

    def search(slowest: float) -> OptimizeResult:
        spread = 1 - np.geomspace(slowest, 0.7, 2 * buffers)
        start = logit(np.concatenate([spread[:1], spread[1:] / spread[:-1]]))
        bounds = [(-20, 20)] * len(start)
        return minimize(loss, start, method="L-BFGS-B", jac="3-point", bounds=bounds)

    starts = 1 / (shape.rounds + 1), _SHARE_OF_SEPARATION / shape.separation
    result = min(map(search, starts), key=lambda found: float(found.fun))
    poles = np.cumprod(expit(result.x))
    return float(result.fun), poles[::2], poles[1::2]


def _rounded(
    decays: NDArray[np.float64], zeros: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights = residues(decays, zeros)
    return decays.astype(np.float32).astype(float), weights.astype(np.float32).astype(float)


def _vectors(experiment: Experiment) -> int:
    """Return the number of buffers, or its minimum if it is optimised."""
    return experiment.privacy.buffers or 1


KIND = Kind(
    build,
    samplings={"shuffled": Accounting.KEPT_APART},
    otherwise=APART,
    keys=frozenset({"buffers"}),
    is_optimised=True,
    vectors=_vectors,
)
