"""Privacy cost of choosing among several private runs on the same clients.

*Composition* bounds everything that a fixed number of runs releases, so also the best of them. Runs
of one seed share their cohorts, so amplification by sampling does not hold for them independently:
in each round their sums together are one Gaussian release, whose noise multipliers z_i combine to
``(sum z_i^-2)^(-1/2)``. Runs of different seeds, or with secret cohorts, compose.

*Random numbers of runs* cost less (Papernot and Steinke, arXiv 2110.03620): if their number K is
drawn and kept secret, and only the best run is released, theorem 2 (truncated negative binomial)
and theorem 6 (Poisson) bound the Renyi divergence of the choice by that of one run. Neither holds
for a fixed number of runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fedsi.errors import UserError
from fedsi.plan import Plan
from fedsi.privacy import zcdp
from fedsi.privacy.accounting import ZERO_OUT, adjacency, epsilon
from fedsi.privacy.composed import composed_epsilon
from fedsi.privacy.mechanisms.kind import Accounting
from fedsi.privacy.sampled_accounting import poisson_rdp

SHARED = ("mechanism", "sampling", "population", "cohort_size", "cohort_cap", "groups")
"""What runs with the same cohorts have in common."""

Divergence = Callable[[float], float]
"""The Renyi divergence of one run by its order, for neighbouring populations."""

ORDERS: tuple[float, ...] = (1.1, 1.25, *np.geomspace(1.5, 512, 40).tolist())
"""Orders of the Renyi divergence that bounds are minimised over."""


@dataclass(frozen=True)
class JointCost:
    """Privacy cost of all releases of several runs."""

    epsilon: float
    adjacency: str
    """That of the runs, or zeroing out a client, which all of them cover, if they differ in it."""


def joint_cost(seeds: Sequence[Sequence[Plan]]) -> JointCost | None:
    """Return the privacy cost of all releases of several runs, at their smallest delta.

    Args:
        seeds: The plans of the runs, those that share their cohorts together.

    Returns:
        None if runs that share their cohorts differ in how these are drawn: such cohorts depend on
        each other in ways for which no bound is known here.
    """
    plans = [plan for group in seeds for plan in group]
    delta = min(plan.delta for plan in plans)
    rhos = [[_rho(plan) for plan in group] for group in seeds]
    known = [rho for group in rhos for rho in group if rho is not None]
    sampled = [
        group for group, costs in zip(seeds, rhos, strict=True) if any(rho is None for rho in costs)
    ]
    if any(len({_drawing(plan) for plan in group}) > 1 for group in sampled):
        return None
    runs, rho = [_joined(group, delta) for group in sampled], math.fsum(known)
    if not runs:
        value = zcdp.epsilon_of(rho, delta)
    elif len(set(runs)) == 1 and not known:
        value = _repeated(runs[0], len(runs))
    else:
        value = composed_epsilon(runs, rho, delta)
    alike = {adjacency(plan) for plan in plans}
    return JointCost(value, alike.pop() if len(alike) == 1 else ZERO_OUT)


def _repeated(plan: Plan, runs: int) -> float:
    """Return epsilon of some equal runs; infinite if delta is too small for so many rounds."""
    try:
        return epsilon(replace(plan, rounds=plan.rounds * runs)).epsilon
    except UserError:
        return math.inf


def _drawing(plan: Plan) -> tuple[object, ...]:
    """Return what decides, with the seed, how a run's cohorts are drawn."""
    return tuple(getattr(plan, key) for key in SHARED)


def _joined(plans: Sequence[Plan], delta: float) -> Plan:
    """Return one run that costs at least as much as some runs with the same cohorts together."""
    longest = max(plans, key=lambda plan: plan.rounds)
    return replace(
        longest, rounds=_whole_turns(longest), noise_multiplier=_joint_noise(plans), delta=delta
    )


def _rho(plan: Plan) -> float | None:
    """Return rho of a run that is one Gaussian release; None if its cohorts are sampled."""
    everyone = plan.accounting is Accounting.INCLUDED_BY_CHANCE and plan.sampling_rate == 1
    if plan.accounting is Accounting.KEPT_APART or everyone:
        return epsilon(plan).rho
    return None


def _joint_noise(plans: Sequence[Plan]) -> float:
    """Return the noise multiplier of runs with the same cohorts, together."""
    if any(plan.noise_multiplier == 0 for plan in plans):
        return 0.0
    return 1 / math.sqrt(math.fsum(plan.noise_multiplier**-2 for plan in plans))


def _whole_turns(plan: Plan) -> int:
    """Return the rounds of a run, rounded up to whole passes or whole turns of all groups."""
    unit = plan.rounds_per_pass if plan.bounds_participations else plan.groups
    return math.ceil(plan.rounds / unit) * unit


@dataclass(frozen=True)
class RandomSelection:
    """The best of a random number of runs."""

    law: str
    """Distribution of the number of runs."""
    mean: float
    """Mean of the distribution."""
    epsilon: float


def random_selection(plan: Plan, mean: float) -> RandomSelection | None:
    """Return the cheapest choice among a random number of runs of a plan, with that mean.

    Args:
        plan: The plan of each run; their cohorts and noise are independent.
        mean: Mean number of runs, above 1.

    Returns:
        None if the Renyi divergence of one run is not known.
    """
    divergence, delta_of = _divergence(plan), _delta_of(plan)
    if divergence is None:
        return None
    laws: dict[str, Divergence] = {
        "Poisson": lambda order: poisson_bound(divergence, delta_of, order, mean),
        "geometric": lambda order: negative_binomial_bound(divergence, order, mean, 1.0),
        "logarithmic": lambda order: negative_binomial_bound(divergence, order, mean, 0.0),
    }
    costs = {
        law: min(_converted(bound(order), order, plan.delta) for order in ORDERS)
        for law, bound in laws.items()
    }
    law = min(costs, key=costs.__getitem__)
    return RandomSelection(law, mean, max(0.0, costs[law]))


def negative_binomial_bound(
    divergence: Divergence, order: float, mean: float, shape: float
) -> float:
    """Return the Renyi divergence of the best of K runs (arXiv 2110.03620, theorem 2).

    Args:
        divergence: That of one run.
        order: Order of the result, above 1.
        mean: Mean of K.
        shape: eta of K's truncated negative binomial distribution: 1 is the geometric, 0 the
            logarithmic distribution. Larger ones cost more.
    """
    gamma = _gamma(mean, shape)
    inner = min(
        (1 - 1 / other) * divergence(other) + math.log(1 / gamma) / other for other in ORDERS
    )
    return divergence(order) + (1 + shape) * inner + math.log(mean) / (order - 1)


def poisson_bound(divergence: Divergence, delta_of: Divergence, order: float, mean: float) -> float:
    """Return the Renyi divergence of the best of Poisson many runs (arXiv 2110.03620, theorem 6).

    Args:
        divergence: That of one run.
        delta_of: delta of one run by its epsilon.
        order: Order of the result, above 1.
        mean: Mean number of runs; if there is none, something fixed is released.
    """
    allowed = math.log1p(1 / (order - 1))
    return divergence(order) + mean * delta_of(allowed) + math.log(mean) / (order - 1)


def _gamma(mean: float, shape: float) -> float:
    """Return gamma of the truncated negative binomial distribution with a shape of 0 or 1."""
    if shape == 1:
        return 1 / mean
    low, high = 1e-300, 1.0 - 1e-12
    for _ in range(2000):
        middle = math.sqrt(low * high)
        # The mean of the logarithmic distribution falls with gamma.
        too_small = (1 / middle - 1) / -math.log(middle) > mean
        low, high = (middle, high) if too_small else (low, middle)
    return low


def _divergence(plan: Plan) -> Divergence | None:
    rho = _rho(plan)
    if rho is not None:
        return lambda order: rho * order
    if plan.sampling == "poisson" and plan.cohort_cap is None:
        return lambda order: poisson_rdp(plan, order)
    return None


def _delta_of(plan: Plan) -> Divergence:
    rho = _rho(plan)
    if rho is not None:
        return lambda cost: math.exp(zcdp.log_delta_of(rho, cost))

    def delta(cost: float) -> float:
        tails = (
            (order - 1) * (poisson_rdp(plan, order) - cost + math.log1p(-1 / order))
            - math.log(order)
            for order in ORDERS
        )
        return math.exp(min(0.0, *tails))

    return delta


def _converted(divergence: float, order: float, delta: float) -> float:
    """Return epsilon of a Renyi divergence (arXiv 2004.00010, proposition 12)."""
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
