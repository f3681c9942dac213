"""Epsilon of many rounds at small deltas, where float64 has almost lost the tail."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld import common
from dp_accounting.pld import privacy_loss_distribution as losses
from scipy import fft

from fedsi.errors import UserError
from fedsi.plan import Plan
from fedsi.privacy import sampled_accounting, zcdp
from fedsi.privacy.accounting import all_costs, epsilon


def everyone(rounds: int, mu: float, delta: float) -> Plan:
    """Return a plan without sampling, whose rounds together move the sum by mu deviations."""
    return Plan("gaussian", "poisson", 100, 100, rounds, math.sqrt(rounds) / mu, delta)


@pytest.mark.parametrize("rounds", [1, 30, 1000, 5000, 20_000])
def test_convolution_is_never_below_the_closed_form(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    for _ in range(12):
        mu, delta = 10 ** rng.uniform(-0.5, 1), 10 ** rng.uniform(-11, -8)
        plan = everyone(rounds, mu, max(delta, sampled_accounting.least_delta(rounds)))
        found = sampled_accounting.pld_epsilon(plan, rounds)
        exact = zcdp.epsilon_of(mu**2 / 2, plan.delta)
        assert exact <= found < 1.05 * exact + 0.01


def test_everyone_in_every_round_is_priced_exactly() -> None:
    plan = everyone(20_000, 3.0, 1.01e-11)
    exact = zcdp.epsilon_of(4.5, 1.01e-11)
    assert epsilon(plan).epsilon == pytest.approx(exact, rel=1e-9)
    assert exact == pytest.approx(24.0896, abs=1e-3)
    assert all(cost.epsilon >= exact * (1 - 1e-9) for cost in all_costs(plan))
    # Nothing is convolved, so no delta is too small.
    assert epsilon(replace(plan, delta=1e-30)).epsilon == pytest.approx(
        zcdp.epsilon_of(4.5, 1e-30), rel=1e-9
    )


def long_delta(of_a_round: Any, rounds: int, epsilon: float) -> float:
    """Return the delta of composed losses, convolved in extended precision."""
    dense = of_a_round.to_dense_pmf()
    masses = np.asarray(dense._probs, np.longdouble)
    low, high = common.compute_self_convolve_bounds(dense._probs, rounds, 1e-15)
    size = fft.next_fast_len(max(high - low + 1, len(masses)))
    composed = np.roll(fft.ifft(fft.fft(masses, size) ** rounds).real, -low)[: high - low + 1]
    loss = (np.arange(low, high + 1) + dense._lower_loss * rounds) * dense._discretization
    above = loss > epsilon
    infinite = -math.expm1(rounds * math.log1p(-dense._infinity_mass))
    return infinite + float(np.sum(composed[above] * -np.expm1(epsilon - loss[above])))


@pytest.mark.skipif(bool(np.finfo(np.longdouble).eps > 1e-18), reason="needs extended precision")
@pytest.mark.parametrize(
    ("rate", "noise", "rounds"),
    [(0.0015, 0.6, 11_403), (0.0012, 0.415, 22_267), (0.03, 2.2, 13_170), (0.1, 20.0, 40_000)],
)
def test_rounding_is_covered_where_clients_are_sampled(
    rate: float, noise: float, rounds: int
) -> None:
    plan = Plan("gaussian", "poisson", 10**6, round(rate * 10**6), rounds, noise, 0.5)
    plan = replace(plan, delta=sampled_accounting.least_delta(rounds))
    found = sampled_accounting.pld_epsilon(plan, rounds)
    one = sampled_accounting._losses_of_a_round(
        plan.population, plan.cohort_size, None, noise, sampled_accounting._interval(plan)
    )
    for of_a_round in (one._pmf_remove, one._pmf_add):
        assert long_delta(of_a_round, rounds, found) <= plan.delta


def test_a_delta_that_rounding_would_hide_is_refused() -> None:
    plan = Plan("gaussian", "poisson", 1000, 10, 100_000, 5.0, 1e-11)
    with pytest.raises(UserError, match=r"below 8.88e-11, the least for which 100000 rounds"):
        epsilon(plan)


def test_what_a_library_leaves_out_is_not_said_line_by_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sampled_accounting._rdp_of_a_round.cache_clear()
    costs = all_costs(Plan("gaussian", "poisson", 1000, 500, 10, 1.0, 1e-5))
    assert costs[0].epsilon < costs[-1].epsilon < math.inf
    assert not caplog.records


@pytest.mark.parametrize("rate", [0.02, 0.5, 1.0])
def test_one_round_of_fixed_size_is_as_the_theorem_says(rate: float) -> None:
    """delta at ``log(1 + g (e^eps - 1))`` is g times that of all clients (arXiv 1807.01647)."""
    all_clients = Plan("gaussian", "uniform", 100, 100, 1, 2.0, 1e-5)
    everyone_epsilon = zcdp.epsilon_of(0.5, all_clients.delta)  # moved by 2 of 2 deviations
    some = replace(all_clients, cohort_size=round(100 * rate), delta=rate * all_clients.delta)
    found = sampled_accounting.fixed_size_pld_epsilon(some, 1)
    assert found == pytest.approx(math.log1p(rate * math.expm1(everyone_epsilon)), rel=2e-3)


def test_rounds_of_fixed_size_are_above_clients_that_are_known() -> None:
    """A replaced client that sends the opposite of the others, half of the rounds in either order.

    The losses are those of ``(1 - g) N(0) + g N(2)`` against ``N(0)``, or the other way round.
    """
    plan = Plan("gaussian", "uniform", 1000, 10, 40, 1.0, 1e-5)
    rng, rate = np.random.default_rng(0), plan.sampling_rate
    taken = rng.random((200_000, plan.rounds)) < rate
    taken[:, ::2] = False
    drawn = rng.standard_normal(taken.shape) + 2 * taken
    losses = np.log1p(rate * np.expm1(2 * drawn - 2))
    losses[:, ::2] *= -1
    total = losses.sum(1)
    at = sampled_accounting.fixed_size_pld_epsilon(plan, plan.rounds)
    for share in (0.5, 1.0):
        delta = float(np.maximum(1 - np.exp(share * at - total), 0).mean())
        assert (delta <= plan.delta * 1.5) == (share == 1.0)


def delta_of_chosen_sides(plan: Plan, at: float, step: float) -> float:
    """Return a lower bound on delta if each round's side may depend on what was released.

    A training function whose clients send the opposite of a client, or of its replacement, makes a
    round ``(1 - g) N(0) + g N(2)`` against ``N(0)``, or the other way round. The best choice for a
    remaining loss follows backwards from the last round. Losses are rounded down, and remaining
    ones beyond the grid count as without any other round, so delta is not overestimated.
    """
    one = losses.from_gaussian_mechanism(
        plan.noise_multiplier / 2,
        pessimistic_estimate=False,
        value_discretization_interval=step,
        sampling_prob=plan.sampling_rate,
        use_connect_dots=False,
    )
    remaining = step * np.arange(round(-4 / step), round((at + 1) / step))
    points = len(remaining)
    size = fft.next_fast_len(5 * points, real=True)
    sides = []
    for side in (one._pmf_remove.to_dense_pmf(), one._pmf_add.to_dense_pmf()):
        loss = np.minimum(side._lower_loss + np.arange(len(side._probs)), points)
        kept = loss >= -points
        masses = np.bincount(loss[kept] + points, side._probs[kept], 2 * points + 1)
        sides.append(fft.rfft(masses, size))
    below = -np.expm1(remaining[0] - step * np.arange(points, 0, -1))
    delta = np.maximum(0, -np.expm1(remaining))
    for _ in range(plan.rounds):
        after = fft.rfft(np.concatenate([below, delta, np.zeros(points)]), size)
        either = [fft.irfft(after * side, size)[2 * points : 3 * points] for side in sides]
        delta = np.maximum(0, np.maximum(*either))
    return float(np.interp(at, remaining, delta))


def test_one_side_in_all_rounds_is_no_bound_for_fixed_size() -> None:
    plan = Plan("gaussian", "uniform", 1000, 10, 100, 1.0, 1e-6)
    one = losses.from_gaussian_mechanism(0.5, sampling_prob=0.01)
    one_side = one.self_compose(plan.rounds).get_epsilon_for_delta(plan.delta)
    assert one_side == pytest.approx(7.917, abs=1e-3)
    assert delta_of_chosen_sides(plan, one_side, 5e-4) > plan.delta
    found = sampled_accounting.fixed_size_pld_epsilon(plan, plan.rounds)
    assert delta_of_chosen_sides(plan, found, 5e-4) < 0.9 * plan.delta
