"""Ways to sample cohorts and make noise for the same plan, held against each other.

The measure is the error of the model: the root mean square, over rounds, of the noise in the
iterates of the server's SGD at learning rate 1, per coordinate and in clip norms. Noise on single
rounds says nothing about it if noise is correlated.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fedsi.plan import Plan
from fedsi.privacy.accounting import calibrated, epsilon
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.privacy.mechanisms.workload import workload_of

_COLUMNS = 256
"""Columns of C^-1 that are computed at once."""


@dataclass(frozen=True)
class Alternative:
    """One way to run a plan."""

    name: str
    plan: Plan
    """The plan, with the noise multiplier that reaches the target."""
    epsilon: float
    error: float
    """Error of the model, in clip norms."""


def plans_by_way(plan: Plan) -> dict[str, list[Plan]]:
    """Return the plans of each way, for a plan's population, cohort size, rounds and delta.

    Groups are powers of two, up to as many as the population allows. BLT's participations are as
    far apart as passes allow.
    """
    base = replace(
        plan, mechanism="gaussian", sampling="poisson", cohort_cap=None, min_separation=1, groups=1,
        participations=None, bands=None, buffers=None, restart_every=None,
    )  # fmt: skip
    most = min(plan.rounds_per_pass, plan.rounds)
    groups = [2**power for power in range(most.bit_length())]
    return {
        "Poisson, independent noise": [base],
        "allocated, independent noise": [replace(base, sampling="allocated")],
        "cyclic groups, banded noise": [
            replace(base, mechanism="banded", sampling="cyclic", groups=count) for count in groups
        ],
        "shuffled, BLT": [
            replace(base, mechanism="blt", sampling="shuffled", min_separation=plan.rounds_per_pass)
        ],
    }


def alternatives(plan: Plan, target_epsilon: float) -> list[Alternative]:
    """Return each way at a target epsilon, with its number of groups of the least error.

    Raises:
        UserError: No noise reaches the target.
    """

    def at_target(name: str, candidate: Plan) -> Alternative:
        found = calibrated(candidate, target_epsilon)
        return Alternative(name, found, epsilon(found).epsilon, error(found))

    return _best_of_each(plan, at_target, lambda found: found.error)


def at_equal_error(plan: Plan, wanted: float) -> list[Alternative]:
    """Return each way with the noise that gives an error, with its groups of the least epsilon.

    Args:
        plan: Same as for ``alternatives``.
        wanted: The error, in clip norms.
    """

    def at_error(name: str, candidate: Plan) -> Alternative:
        found = replace(candidate, noise_multiplier=wanted / error(candidate, 1.0))
        return Alternative(name, found, epsilon(found).epsilon, wanted)

    return _best_of_each(plan, at_error, lambda found: found.epsilon)


def _best_of_each(
    plan: Plan,
    made: Callable[[str, Plan], Alternative],
    cost: Callable[[Alternative], float],
) -> list[Alternative]:
    return [
        _first_minimum((made(name, each) for each in plans), cost)
        for name, plans in plans_by_way(plan).items()
    ]


def _first_minimum(
    found: Iterable[Alternative], cost: Callable[[Alternative], float]
) -> Alternative:
    """Return the alternative before costs rise; over the number of groups they fall, then rise."""
    each = iter(found)
    best = next(each)
    for candidate in each:
        if cost(candidate) >= cost(best):
            break
        best = candidate
    return best


def error(plan: Plan, noise_multiplier: float | None = None) -> float:
    """Return the error of the model, in clip norms.

    The mechanism draws one vector a round, as all but ``tree`` do.

    Args:
        plan: Provides the mechanism, the momentum and the course of learning rates.
        noise_multiplier: Replaces the plan's.
    """
    multiplier = plan.noise_multiplier if noise_multiplier is None else noise_multiplier
    return multiplier / plan.expected_cohort * _unit_error(replace(plan, noise_multiplier=1.0))


@lru_cache(maxsize=64)
def _unit_error(plan: Plan) -> float:
    """Return the error for noise of standard deviation 1, by running the mechanism on impulses."""
    mechanism, workload, rounds = build_mechanism(plan), workload_of(plan), plan.rounds
    total = 0.0
    for first in range(0, rounds, _COLUMNS):
        size = min(_COLUMNS, rounds - first)
        state = {name: array.astype(np.float64)
                 for name, array in mechanism.initial_state(size).items()}  # fmt: skip
        moment, iterate = np.zeros(size), np.zeros(size)
        for number in range(first + 1, rounds + 1):
            impulse = np.zeros(size)
            if number <= first + size:
                impulse[number - 1 - first] = 1.0
            noise = mechanism.noise(state, number, {0: impulse}.__getitem__)
            moment = workload.momentum * moment + noise
            iterate += workload.factors[number - 1] * moment
            total += float(iterate @ iterate)
    return math.sqrt(total / rounds)
