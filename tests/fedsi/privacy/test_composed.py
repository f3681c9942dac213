"""Runs of different kinds together, against another accountant and against one run of all."""

import math
from dataclasses import replace
from itertools import combinations

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant

from fedsi.plan import Plan
from fedsi.privacy.accounting import epsilon
from fedsi.privacy.composed import composed_epsilon

DELTA = 1e-6
POISSON = Plan("gaussian", "poisson", 10_000, 100, 50, 1.0, DELTA)
OTHER = replace(POISSON, cohort_size=400, rounds=20, noise_multiplier=2.0)
ALLOCATED = Plan("gaussian", "allocated", 1000, 100, 20, 2.0, DELTA)
UNIFORM = Plan("gaussian", "uniform", 1000, 10, 30, 2.0, DELTA)
CYCLIC = Plan("banded", "cyclic", 10_000, 100, 40, 2.0, DELTA, groups=4, bands=4)


def library(*plans: Plan, rho: float = 0.0) -> float:
    """Return epsilon of Poisson sampling and of a Gaussian by dp-accounting, on its fine grid."""
    accountant = PLDAccountant()
    for plan in plans:
        noise = dp_accounting.GaussianDpEvent(plan.noise_multiplier)
        accountant.compose(
            dp_accounting.PoissonSampledDpEvent(plan.sampling_rate, noise), plan.rounds
        )
    if rho:
        accountant.compose(dp_accounting.GaussianDpEvent(1 / math.sqrt(2 * rho)))
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize("rho", [0.0, 0.02, 0.5])
def test_two_rates_and_a_gaussian_against_a_library(rho: float) -> None:
    exact = library(POISSON, OTHER, rho=rho)
    assert exact * (1 - 1e-3) <= composed_epsilon([POISSON, OTHER], rho, DELTA) < 1.003 * exact


@pytest.mark.parametrize("plan", [POISSON, ALLOCATED, UNIFORM, CYCLIC], ids=lambda p: p.sampling)
def test_two_equal_runs_are_one_of_twice_the_rounds(plan: Plan) -> None:
    twice = epsilon(replace(plan, rounds=2 * plan.rounds)).epsilon
    assert composed_epsilon([plan, plan], 0.0, DELTA) == pytest.approx(twice, rel=2e-3)


def test_every_pair_costs_more_than_either_and_less_than_both() -> None:
    for pair in combinations([POISSON, ALLOCATED, UNIFORM, CYCLIC], 2):
        alone = [epsilon(plan).epsilon for plan in pair]
        found = composed_epsilon(pair, 0.0, DELTA)
        assert max(alone) < found < sum(epsilon(replace(p, delta=DELTA / 2)).epsilon for p in pair)


def test_a_run_without_noise_or_a_delta_that_rounding_hides_has_no_bound() -> None:
    silent = replace(OTHER, noise_multiplier=1e-4)
    assert composed_epsilon([POISSON, silent], 0.0, DELTA) == math.inf
    assert composed_epsilon([POISSON, OTHER], math.inf, DELTA) == math.inf
    assert composed_epsilon([POISSON, OTHER], 0.0, 1e-15) == math.inf
