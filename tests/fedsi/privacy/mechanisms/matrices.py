"""Slow, simple references for the mechanisms: explicit matrices and exhaustive searches."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.plan import Plan
from fedsi.privacy.mechanisms.mechanism import Mechanism

Matrix = NDArray[np.float64]


def plan(mechanism: str, rounds: int, **changes: Any) -> Plan:
    """Return a plan of shuffled passes of as many rounds as the minimum separation."""
    separation = changes.pop("min_separation", rounds)
    return Plan(
        mechanism=mechanism,
        sampling="shuffled",
        population=separation,
        cohort_size=1,
        rounds=rounds,
        noise_multiplier=1.0,
        delta=1e-6,
        min_separation=separation,
        **changes,
    )


def draws(seed: int, size: int, dtype: Any = np.float64) -> Callable[[int], Callable[[int], Any]]:
    """Return, by round, that round's independent vectors."""

    def of_round(round_number: int) -> Callable[[int], Any]:
        return lambda k: (
            np.random.default_rng([seed, round_number, k]).standard_normal(size).astype(dtype)
        )

    return of_round


def streamed(
    mechanism: Mechanism, rounds: int, fresh: Callable[[int], Callable[[int], Any]], size: int
) -> Matrix:
    """Return the noise of all rounds ``[rounds, size]``, in the type of ``fresh``."""
    dtype = fresh(1)(0).dtype
    state: Any = {
        name: array.astype(dtype) for name, array in mechanism.initial_state(size).items()
    }
    return np.stack([mechanism.noise(state, t, fresh(t)) for t in range(1, rounds + 1)])


def inverse(mechanism: Mechanism, rounds: int) -> Matrix:
    """Return C^-1 of a mechanism that uses one vector a round, from its noise for unit vectors."""
    return streamed(mechanism, rounds, lambda t: lambda _: np.eye(rounds)[t - 1], rounds)


def slow_workload(rates: Matrix, momentum: float) -> Matrix:
    """Return the iterates of SGD with momentum for unit vectors as gradients."""
    rounds = len(rates)
    iterate, velocity, rows = np.zeros(rounds), np.zeros(rounds), []
    for rate, gradient in zip(rates, np.eye(rounds), strict=True):
        velocity = momentum * velocity + gradient
        iterate = iterate + rate * velocity
        rows.append(iterate)
    return np.array(rows)


def loss(mechanism: Mechanism, rounds: int) -> float:
    """Return sensitivity times the root mean squared error of prefix sums."""
    errors = np.cumsum(inverse(mechanism, rounds), axis=0)
    return mechanism.sensitivity * math.sqrt(np.sum(errors**2) / rounds)


def patterns(rounds: int, participations: int, separation: int) -> Iterator[tuple[int, ...]]:
    """Return all sets of rounds, from 0, in which a client may take part."""
    for count in range(1, participations + 1):
        for chosen in itertools.combinations(range(rounds), count):
            if all(later - earlier >= separation for earlier, later in itertools.pairwise(chosen)):
                yield chosen


def searched_sensitivity(matrix: Matrix, participations: int, separation: int) -> float:
    """Return the largest norm of sums of columns, for a matrix without negative entries."""
    assert np.all(matrix >= -1e-12)
    return max(
        float(np.linalg.norm(matrix[:, list(chosen)].sum(axis=1)))
        for chosen in patterns(matrix.shape[1], participations, separation)
    )
