"""Allocated cohorts cost what direct computation says, and a cut of fixed size costs more."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi import Experiment
from fedsi.errors import UserError
from fedsi.plan import Plan
from fedsi.privacy import allocated_accounting, zcdp
from fedsi.privacy.accounting import all_costs, calibrated, epsilon
from fedsi.privacy.allocated_accounting import allocated_epsilon
from fedsi.privacy.sampled_accounting import pld_epsilon


def plan(noise: float, rounds: int, passes: int, **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "mechanism": "gaussian",
        "sampling": "allocated",
        "population": 100 * rounds,
        "cohort_size": 100,
        "rounds": rounds * passes,
        "noise_multiplier": noise,
        "delta": 1e-6,
    }
    return Plan(**values | changes)


# Upper and lower bounds by the authors' package PLD_accounting 2.0, at its default accuracy.
BOUNDS = [
    (1.0, 100, 15, 2.4447, 2.3621),
    (1.0, 50, 4, 1.9968, 1.9168),
    (2.0, 100, 15, 0.8840, 0.8468),
    (0.6, 100, 2, 4.9213, 4.8683),
]


@pytest.mark.parametrize(("noise", "rounds", "passes", "most", "least"), BOUNDS)
def test_epsilon_is_within_the_bounds_of_its_authors(
    noise: float, rounds: int, passes: int, most: float, least: float
) -> None:
    cost = epsilon(plan(noise, rounds, passes))
    assert least < cost.epsilon < most
    assert cost.accountant == "PLD of random allocation"
    poisson = plan(noise, rounds, passes, sampling="poisson")
    assert cost.epsilon < pld_epsilon(poisson, poisson.rounds)


def simulated_delta(noise: float, rounds: int, at: float, moved: float, known: float) -> float:
    """Return delta at epsilon ``at`` of one pass, by drawing it.

    Args:
        noise: The noise multiplier.
        rounds: Rounds of the pass.
        at: The epsilon.
        moved: Move of the client's round with the client, in clip norms.
        known: Its move without the client: 0 if nothing of the other clients tells the round.
    """
    rng = np.random.default_rng(0)
    deltas = []
    for _ in range(40):
        drawn = rng.standard_normal((10_000, rounds))
        drawn[:, 0] += moved / noise
        with_it = np.exp(drawn * moved / noise - (moved / noise) ** 2 / 2).mean(1)
        without = np.exp(drawn * known / noise - (known / noise) ** 2 / 2).mean(1)
        deltas.append(float(np.maximum(1 - math.exp(at) * without / with_it, 0).mean()))
    return float(np.mean(deltas))


def test_one_pass_is_as_drawn() -> None:
    found = calibrated_delta(1.0, 10, 1.0)
    assert found == pytest.approx(simulated_delta(1.0, 10, 1.0, 1.0, 0.0), rel=0.03)
    assert found == pytest.approx(0.0028, rel=0.03)


def calibrated_delta(noise: float, rounds: int, at: float) -> float:
    """Return the delta at which one pass costs ``at``, by bisection."""
    low, high = 1e-9, 0.5
    for _ in range(50):
        middle = math.sqrt(low * high)
        cost = allocated_epsilon(plan(noise, rounds, 1, delta=middle), rounds)
        low, high = (low, middle) if cost < at else (middle, high)
    return high


def test_a_cut_into_cohorts_of_fixed_size_is_not_covered() -> None:
    """If all other clients send the opposite, the sums' counts tell the client's round.

    In the client's round there is one client fewer, with or without it: its sum is higher by 1
    without the client and by 2 with it.
    """
    cut = simulated_delta(1.0, 10, 1.0, 2.0, 1.0)
    assert cut == pytest.approx(0.076, rel=0.05)
    assert cut > 20 * calibrated_delta(1.0, 10, 1.0)


def test_a_cut_of_fixed_size_is_refused() -> None:
    with pytest.raises(UserError, match=r"fixed size cut from a shuffled pass reveal .*=allocated"):
        plan(1.0, 10, 1, sampling="shuffled")


@settings(max_examples=15, deadline=None)
@given(st.floats(0.8, 8), st.integers(2, 60), st.integers(1, 30), st.sampled_from([1e-5, 1e-8]))
def test_it_is_between_nothing_and_a_known_allocation(
    noise: float, rounds: int, passes: int, delta: float
) -> None:
    cost = allocated_epsilon(plan(noise, rounds, passes, delta=delta), rounds * passes)
    known = zcdp.epsilon_of(passes / noise**2 / 2, delta)
    assert 0 <= cost <= known
    assert cost <= allocated_epsilon(
        plan(noise, rounds, passes + 1, delta=delta), rounds * (passes + 1)
    )


def test_an_unfinished_pass_costs_a_whole_one() -> None:
    whole = plan(1.0, 10, 3)
    costs = [epsilon(whole, rounds).epsilon for rounds in (0, 1, 10, 11, 30)]
    assert costs[0] == 0
    assert costs[1] == costs[2] < costs[3] < costs[4]
    assert epsilon(replace(whole, rounds=21)).epsilon == pytest.approx(costs[4])


def test_a_coarse_grid_is_still_above_a_fine_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = allocated_epsilon(plan(1.0, 20, 2), 40)
    allocated_accounting._losses_of_a_pass.cache_clear()
    monkeypatch.setattr(allocated_accounting, "_STEP", 0.5)
    coarse = allocated_epsilon(plan(1.0, 20, 2), 40)
    allocated_accounting._losses_of_a_pass.cache_clear()
    assert fine < coarse < 1.1 * fine


@pytest.mark.parametrize("noise", [0.01, 0.15, 1e4])
def test_extreme_noise_has_a_cost(noise: float) -> None:
    cost = allocated_epsilon(plan(noise, 10, 2), 20)
    assert 0 <= cost <= zcdp.epsilon_of(2 / noise**2 / 2, 1e-6)


def test_every_cost_is_valid_and_a_target_is_reached() -> None:
    found = calibrated(plan(1.0, 20, 5), 2.0)
    first, second = all_costs(found)
    assert 1.99 < first.epsilon <= 2.0 < second.epsilon
    assert "loose" in second.note


def test_a_pass_of_one_round_is_everyone_in_every_round() -> None:
    every = plan(2.0, 1, 9)
    assert epsilon(every).epsilon == pytest.approx(zcdp.epsilon_of(9 / 8, 1e-6))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sampling": "allocated", "cohort_cap": 5}, "cohort_cap=5 has no effect with .*allocated"),
        ({"sampling": "allocated", "min_separation": 5}, "min_separation=5 has no effect"),
        ({"sampling": "allocated", "groups": 5}, "groups=5 has no effect with .*allocated"),
        ({"sampling": "cyclic"}, r"cyclic needs server\.groups"),
    ],
)
def test_keys_of_other_samplings_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        Experiment(server=settings)


def test_a_delta_below_what_float64_holds_is_refused() -> None:
    with pytest.raises(UserError, match="delta = 1e-12 is below"):
        epsilon(plan(1.0, 10, 1, delta=1e-12))
