import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsi.privacy import canaries
from fedsi.privacy.audit import audit, counting_bound, gaussian_bound, guess

DELTA = 1e-5


def drawn(mu: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a Gaussian mechanism of which mu is sensitivity over noise."""
    rng = np.random.default_rng(seed)
    included = rng.random(count) < 0.5
    return (rng.normal(0, 1, count) + mu * included)[None], included


def epsilon_of(mu: float) -> float:
    """The slow twin: epsilon of a Gaussian mechanism by bisection on its delta."""
    low, high = 0.0, 200.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        delta = stats.norm.cdf(mu / 2 - middle / mu) - math.exp(middle) * stats.norm.cdf(
            -mu / 2 - middle / mu
        )
        low, high = (middle, high) if delta > DELTA else (low, middle)
    return high


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.0])
def test_bounds_hold_as_often_as_they_say(mu: float) -> None:
    true = epsilon_of(mu)
    wrong = sum(audit(*drawn(mu, 400, seed), DELTA).refutes(true) for seed in range(60))
    # At most 5 % of bounds may be above the truth: more than 9 of 60 has a probability below 1e-3.
    assert wrong <= 9


def test_bounds_come_near_the_truth() -> None:
    found = audit(*drawn(1.0, 4000, 0), DELTA)
    assert 0.75 * epsilon_of(1.0) < found.epsilon < epsilon_of(1.0)


def test_noise_of_a_third_is_caught() -> None:
    claimed = epsilon_of(0.5)
    assert all(audit(*drawn(1.5, 400, seed), DELTA).refutes(claimed) for seed in range(10))


def test_without_noise_the_bound_is_as_large_as_guesses_allow() -> None:
    scores, included = np.array([1.0] * 200 + [0.0] * 200), np.arange(400) < 200
    found = audit((scores + 1e-9 * np.arange(400))[None], included, DELTA)
    assert (found.guesses, found.correct) == (80, 80)
    # A binomial of 80 that is all successes: q^80 = 0.0125.
    assert found.counting_epsilon == pytest.approx(-math.log(0.0125 ** (-1 / 80) - 1), rel=0.05)
    assert found.gaussian_epsilon > 100


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0.001, 0.5))
def test_counting_without_delta_is_the_clopper_pearson_bound(
    guesses: int, share: float, error: float
) -> None:
    correct = round(share * guesses)
    found = counting_bound(400, guesses, correct, 0.0, error)
    lower = stats.beta.ppf(error, correct, guesses - correct + 1) if correct else 0.0
    expected = math.log(lower / (1 - lower)) if lower > 0.5 else 0.0
    assert found == pytest.approx(min(expected, 30.0), abs=1e-4)


def test_a_larger_delta_can_only_lower_the_bound() -> None:
    bounds = [counting_bound(400, 80, 75, delta, 0.025) for delta in (0.0, 1e-6, 1e-4, 1e-2)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[-1]


def test_canaries_that_score_like_the_others_bound_nothing() -> None:
    same = np.linspace(-1, 1, 100)
    assert gaussian_bound(same, same, DELTA, 0.025) == 0.0
    assert guess(np.arange(100.0), np.arange(100) % 2 == 0) == (20, 10)


def test_directions_are_units_and_all_but_orthogonal() -> None:
    vectors = np.stack([canaries.direction(3, k, 2000) for k in range(20)])
    products = vectors @ vectors.T
    assert np.allclose(np.diag(products), 1, atol=1e-5)
    assert np.abs(products - np.diag(np.diag(products))).max() < 6 / math.sqrt(2000)
    assert not np.array_equal(vectors[0], canaries.direction(4, 0, 2000))


def test_scores_count_participations() -> None:
    size = 5000
    released = 3 * canaries.direction(0, 1, size) - 2 * canaries.direction(0, 4, size)
    found = canaries.scores(0, 6, released)
    assert np.allclose(found, [0, 3, 0, 0, -2, 0], atol=0.3)


def test_half_of_the_canaries_take_part() -> None:
    taking_part = canaries.included(0, 10_000)
    assert abs(taking_part.mean() - 0.5) < 0.02
    assert not np.array_equal(taking_part, canaries.included(1, 10_000))
