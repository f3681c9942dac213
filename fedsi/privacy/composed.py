"""Privacy cost of several runs on the same clients whose cohorts are drawn independently.

The privacy losses of the runs, each by its own accountant, are put on one grid and convolved. Runs
may differ in everything. Zeroing out a client is what all adjacencies have in common: it is adding
or removing its text where each client is drawn independently of the others, and a way of replacing
it where cohorts have a fixed size. Dominating pairs of both orders are kept apart, so what a run
releases may depend on the runs before it (arXiv 2106.08567, theorem 10).
"""

import math
from collections.abc import Sequence

import numpy as np
from dp_accounting.pld.pld_pmf import DensePLDPmf
from dp_accounting.pld.privacy_loss_distribution import (
    PrivacyLossDistribution,
    from_gaussian_mechanism,
)

from fedsi.plan import Plan
from fedsi.privacy import accounting, sampled_accounting
from fedsi.privacy.allocated_accounting import allocated_losses, gains_by_allocation, on_grid
from fedsi.privacy.mechanisms.kind import Accounting

_POINTS = 400
"""Points of a Gaussian's grid in the standard deviation of its loss."""


def composed_epsilon(plans: Sequence[Plan], rho: float, delta: float) -> float:
    """Return epsilon of everything that some runs with independent cohorts release.

    Args:
        plans: The plans of runs with sampled cohorts.
        rho: rho of zCDP of all other releases, which are Gaussian; 0 if there are none.
        delta: delta of all releases together.

    Returns:
        Infinite if a run has too little noise, or delta is too small for float64.
    """
    little = any(plan.noise_multiplier < accounting.LEAST_NOISE_MULTIPLIER for plan in plans)
    if little or math.isinf(rho):
        return math.inf
    each = [_losses(plan) for plan in plans] + ([_gaussian(rho)] if rho else [])
    lost = math.fsum(run_lost for _, run_lost in each)
    left = delta - lost - sampled_accounting.lost_by_rounding(len(each))
    if left <= 0:
        return math.inf
    step = max(losses._pmf_remove._discretization for losses, _ in each)
    total = _regridded(each[0][0], step)
    for losses, _ in each[1:]:
        total = total.compose(_regridded(losses, step))
    return float(total.get_epsilon_for_delta(left))


def _losses(plan: Plan) -> tuple[PrivacyLossDistribution, float]:
    """Return the losses of a run, and a bound on the probability that rounding lost."""
    rounds = plan.rounds
    if plan.accounting is Accounting.FIXED_SIZE:
        losses = sampled_accounting.fixed_size_losses(plan, rounds)
        return losses, sampled_accounting.lost_by_rounding(rounds)
    if plan.accounting is Accounting.ALLOCATED:
        if gains_by_allocation(plan):
            return allocated_losses(plan, plan.passes_within(rounds))
        return _gaussian(plan.passes_within(rounds) / plan.noise_multiplier**2 / 2)
    if plan.accounting is Accounting.TAKING_TURNS:
        return _losses(accounting.group_plan(plan))
    losses = sampled_accounting.poisson_losses(plan, rounds)
    return losses, sampled_accounting.lost_by_rounding(rounds)


def _gaussian(rho: float) -> tuple[PrivacyLossDistribution, float]:
    """Return the losses of one Gaussian release, which loses nothing."""
    deviation = math.sqrt(2 * rho)
    losses = from_gaussian_mechanism(
        1 / deviation, value_discretization_interval=deviation / _POINTS
    )
    return losses, 0.0


def _regridded(losses: PrivacyLossDistribution, step: float) -> PrivacyLossDistribution:
    """Return losses that dominate the given ones, on multiples of ``step``."""
    remove = _on_step(losses._pmf_remove.to_dense_pmf(), step)
    return PrivacyLossDistribution(remove, _on_step(losses._pmf_add.to_dense_pmf(), step))


def _on_step(pmf: DensePLDPmf, step: float) -> DensePLDPmf:
    places = pmf._lower_loss + np.arange(len(pmf._probs))
    return on_grid(places * pmf._discretization, pmf._probs, step)
