"""Bounds on the choice among several private runs, against closed forms and brute force."""

import math
from dataclasses import replace

import numpy as np
import pytest

from fedsi.plan import Plan
from fedsi.privacy import zcdp
from fedsi.privacy.accounting import epsilon
from fedsi.privacy.composed import composed_epsilon
from fedsi.privacy.selection import (
    joint_cost,
    negative_binomial_bound,
    poisson_bound,
    random_selection,
)

POISSON = Plan("gaussian", "poisson", 10_000, 100, 50, 1.0, 1e-6)
APART = Plan("blt", "shuffled", 10_000, 100, 40, 8.0, 1e-6, min_separation=20, buffers=1)


def cost(seeds: list[list[Plan]]) -> float:
    found = joint_cost(seeds)
    assert found
    return found.epsilon


def test_one_run_costs_what_it_costs() -> None:
    assert cost([[POISSON]]) == epsilon(POISSON).epsilon
    assert cost([[APART]]) == pytest.approx(epsilon(APART).epsilon, rel=1e-12)


def test_runs_of_one_seed_share_their_cohorts_and_cost_more_than_runs_of_several() -> None:
    together, apart = cost([[POISSON] * 4]), cost([[POISSON]] * 4)
    # Four equal releases of one cohort are one with half the noise; four cohorts are more rounds.
    assert together == epsilon(replace(POISSON, noise_multiplier=0.5)).epsilon
    assert apart == epsilon(replace(POISSON, rounds=200)).epsilon
    assert together > 1.5 * apart


def test_without_sampling_both_are_one_gaussian() -> None:
    rho = epsilon(APART).rho
    assert rho
    other = replace(APART, noise_multiplier=4.0)  # a quarter of the variance, four times rho
    for seeds in ([[APART, other]], [[APART], [other]]):
        assert cost(seeds) == pytest.approx(zcdp.epsilon_of(5 * rho, 1e-6), rel=1e-9)


def test_unfinished_passes_and_shorter_runs_cost_whole_ones() -> None:
    passes = Plan("gaussian", "allocated", 100, 10, 15, 2.0, 1e-5)
    whole = epsilon(replace(passes, rounds=30)).epsilon
    assert cost([[passes], [replace(passes, rounds=3)]]) == pytest.approx(whole, rel=2e-3)


def test_runs_of_different_sampling_compose_if_their_cohorts_are_independent() -> None:
    smaller = replace(POISSON, cohort_size=50)
    assert cost([[POISSON], [smaller]]) < cost([[POISSON], [POISSON]])
    allocated = Plan("gaussian", "allocated", 10_000, 100, 100, 1.0, 1e-6)
    same, mixed = joint_cost([[POISSON], [allocated]]), joint_cost([[POISSON], [APART, APART]])
    assert same
    assert mixed
    assert (same.adjacency, mixed.adjacency) == ("add or remove one client", "zero out one client")
    rho = epsilon(APART).rho
    assert rho
    assert mixed.epsilon == composed_epsilon([POISSON], 2 * rho, 1e-6)


def test_different_cohorts_of_one_seed_have_no_bound() -> None:
    assert joint_cost([[POISSON, replace(POISSON, cohort_size=50)]]) is None
    assert joint_cost([[POISSON, APART]]) is None


def choices(numbers: dict[int, float], success: float) -> np.ndarray:
    """Return the probabilities that the best of K coins is 1 or 0; without a coin it is 0."""
    none = sum(chance * (1 - success) ** number for number, chance in numbers.items())
    return np.array([1 - none, none])


def renyi(first: np.ndarray, second: np.ndarray, order: float) -> float:
    terms = order * np.log(first) + (1 - order) * np.log(second)
    return float(np.logaddexp.reduce(terms)) / (order - 1)


@pytest.mark.parametrize("law", ["geometric", "logarithmic", "Poisson"])
@pytest.mark.parametrize("mean", [2.0, 10.0])
def test_the_bounds_hold_for_coins_by_brute_force(law: str, mean: float) -> None:
    """A run is a coin with randomised response: pure epsilon, and Renyi divergences by a sum."""
    pure = 0.2
    for success in (0.02, 0.3, 0.5):
        other = min(success * math.exp(pure), 1 - (1 - success) * math.exp(-pure))
        ends = np.array([success, 1 - success]), np.array([other, 1 - other])

        def one(order: float, ends: tuple[np.ndarray, np.ndarray] = ends) -> float:
            return max(renyi(*ends, order), renyi(*ends[::-1], order))

        if law == "geometric":
            numbers = {k: (1 - 1 / mean) ** (k - 1) / mean for k in range(1, 800)}
        elif law == "logarithmic":
            share = 1 - _gamma_of_logarithmic(mean)
            numbers = {k: -(share**k) / (k * math.log1p(-share)) for k in range(1, 3000)}
        else:
            numbers = {
                k: math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(100)
            }
        assert sum(numbers.values()) == pytest.approx(1, abs=1e-6)
        assert sum(k * p for k, p in numbers.items()) == pytest.approx(mean, rel=1e-3)
        best = choices(numbers, success), choices(numbers, other)
        for order in (1.5, 4.0, 20.0):
            found = max(renyi(*best, order), renyi(*best[::-1], order))
            if law == "Poisson":
                # delta of the coin at an epsilon, exactly
                def delta(cost: float, ends: tuple[np.ndarray, np.ndarray] = ends) -> float:
                    return max(
                        float(np.maximum(a - math.exp(cost) * b, 0).sum())
                        for a, b in (ends, ends[::-1])
                    )

                assert found <= poisson_bound(one, delta, order, mean) + 1e-9
            else:
                shape = 1.0 if law == "geometric" else 0.0
                assert found <= negative_binomial_bound(one, order, mean, shape) + 1e-9


def _gamma_of_logarithmic(mean: float) -> float:
    found: float = min(
        np.geomspace(1e-6, 0.999, 200_000).tolist(),
        key=lambda gamma: abs((1 / gamma - 1) / -math.log(gamma) - mean),
    )
    return found


def test_a_pure_bound_is_two_plus_eta() -> None:
    # Corollary 3 of the paper: pure epsilon becomes (2 + eta) epsilon.
    for shape in (0.0, 1.0):
        bound = negative_binomial_bound(lambda _: 0.1, 1e9, 10.0, shape)
        assert (2 + shape) * 0.1 <= bound < (2 + shape) * 0.1 + 0.02


@pytest.mark.parametrize("plan", [replace(POISSON, rounds=2000), APART], ids=["poisson", "blt"])
def test_a_random_number_of_runs_costs_less_than_a_fixed_one(plan: Plan) -> None:
    found = random_selection(plan, 10)
    assert found
    assert epsilon(plan).epsilon < found.epsilon < cost([[plan]] * 10)


def test_unknown_divergences_have_no_random_bound() -> None:
    assert random_selection(Plan("gaussian", "allocated", 100, 10, 10, 2.0, 1e-5), 5) is None
