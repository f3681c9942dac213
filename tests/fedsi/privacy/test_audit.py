import math

import numpy as np
import pytest

from fedsi.privacy import canaries
from fedsi.privacy.audit import SHARES, audit, guess
from fedsi.privacy.audit_bounds import PrivacyCurve
from fedsi.privacy.zcdp import epsilon_of

DELTA = 1e-5


def gaussian_curve(mu: float) -> PrivacyCurve:
    """The curve of a Gaussian mechanism of which mu is sensitivity over noise."""
    deltas = np.geomspace(0.6, DELTA, 32)
    return PrivacyCurve(np.array([epsilon_of(mu**2 / 2, delta) for delta in deltas]), deltas)


def drawn(mu: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a Gaussian mechanism of which mu is sensitivity over noise."""
    rng = np.random.default_rng(seed)
    included = rng.random(count) < 0.5
    scores = rng.normal(0, 1, count) + mu * included
    return scores, scores[None], included


def test_bounds_come_near_the_truth() -> None:
    true = epsilon_of(0.5, DELTA)
    found = audit(*drawn(1.0, 4000, 0), DELTA, gaussian_curve(1.0))
    assert 0.85 * true < found.bound < true
    assert found.curve_epsilon
    assert found.counting_epsilon < found.curve_epsilon < found.bound


def test_the_largest_bound_is_named() -> None:
    found = audit(*drawn(1.0, 400, 0), DELTA, gaussian_curve(1.0))
    assert (found.bound_from, found.bound) == ("means", found.gaussian_epsilon)
    assert found.bound == max(found.bounds.values())
    assert found.refutes(found.bound - 1e-6)
    assert not found.refutes(found.bound)
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(found.bounds) < set(SHARES)


def test_noise_of_half_is_caught() -> None:
    claimed = epsilon_of(0.125, DELTA)
    runs = [audit(*drawn(1.0, 400, seed), DELTA, gaussian_curve(0.5)) for seed in range(5)]
    assert all(run.refutes(claimed) for run in runs)


def test_a_run_that_claims_nothing_is_bounded_all_the_same() -> None:
    found = audit(*drawn(1.0, 400, 0), DELTA)
    assert found.curve_epsilon is None
    assert found.bound > 1
    assert not found.refutes(None)


def test_without_noise_the_bound_is_as_large_as_guesses_allow() -> None:
    scores, included = np.array([1.0] * 200 + [0.0] * 200), np.arange(400) < 200
    scores = scores + 1e-9 * np.arange(400)
    found = audit(scores, scores[None], included, DELTA, gaussian_curve(0.5))
    assert (found.guesses, found.correct) == (80, 80)
    # A binomial of 80 that is all successes: q^80 = 0.0025.
    assert found.counting_epsilon == pytest.approx(-math.log(0.0025 ** (-1 / 80) - 1), rel=0.05)
    assert found.gaussian_epsilon > 100
    assert found.curve_epsilon
    assert found.curve_epsilon > 1.5 * found.counting_epsilon


def test_guesses_on_equal_scores_are_as_good_as_coins() -> None:
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
