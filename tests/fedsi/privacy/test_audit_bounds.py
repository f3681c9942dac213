import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fedsi.privacy.audit_bounds import (
    PrivacyCurve,
    counting_bound,
    curve_bound,
    gaussian_bound,
)
from fedsi.privacy.zcdp import epsilon_of

DELTA = 1e-5
CANARIES = 400


def gaussian_curve(mu: float) -> PrivacyCurve:
    """The curve of a Gaussian mechanism of which mu is sensitivity over noise."""
    deltas = np.geomspace(0.6, DELTA, 32)
    return PrivacyCurve(np.array([epsilon_of(mu**2 / 2, delta) for delta in deltas]), deltas)


def right_of(scores: np.ndarray, included: np.ndarray, each: int) -> int:
    """Correct guesses on the largest and the smallest scores."""
    order = np.argsort(scores)
    return int(included[order[-each:]].sum() + (~included[order[:each]]).sum())


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


def largest_tail(canaries: int, guesses: int, correct: int, curve: PrivacyCurve) -> float:
    """The slow twin: the largest probability of so many correct guesses, a linear programme."""
    numbers = np.arange(guesses + 1)
    rows, limits = [], []
    for least in range(1, guesses + 1):
        right = np.where(numbers >= least, numbers, 0) / canaries
        wrong = np.where(numbers >= least - 1, guesses - numbers, 0) / canaries
        for epsilon, delta in zip(curve.epsilons, curve.deltas, strict=True):
            rows += [right - math.exp(epsilon) * wrong, right - math.exp(-epsilon) * wrong]
            limits += [delta, 1 - math.exp(-epsilon) * (1 - delta)]
    found = optimize.linprog(
        -(numbers >= correct).astype(float),
        np.array(rows),
        np.array(limits),
        np.ones((1, guesses + 1)),
        [1.0],
    )
    return -float(found.fun)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "mu"),
    [(12, 6, 6, 1.0), (20, 20, 16, 0.7), (30, 15, 14, 0.3)],
)
def test_the_curve_bound_is_where_the_linear_programme_says(
    canaries: int, guesses: int, correct: int, mu: float
) -> None:
    curve, error = gaussian_curve(mu), 0.05
    found = curve_bound(canaries, guesses, correct, curve, error)
    assert found > 0
    for multiple, impossible in ((0.99 * found, True), (1.01 * found, False)):
        scaled = PrivacyCurve(multiple * curve.epsilons, curve.deltas)
        assert (largest_tail(canaries, guesses, correct, scaled) < error) == impossible


@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_the_curve_bound_holds_and_finds_more_than_counting(mu: float) -> None:
    rng, curve, true = np.random.default_rng(0), gaussian_curve(mu), epsilon_of(mu**2 / 2, DELTA)
    seen: dict[int, tuple[float, float]] = {}
    wrong, more = 0, 0
    for _ in range(200):
        included = rng.random(CANARIES) < 0.5
        correct = right_of(rng.normal(size=CANARIES) + mu * included, included, 40)
        if correct not in seen:
            found = true * curve_bound(CANARIES, 80, correct, curve, 0.05)
            seen[correct] = found, counting_bound(CANARIES, 80, correct, DELTA, 0.05)
        wrong += seen[correct][0] > true
        more += seen[correct][0] >= seen[correct][1]
    assert wrong <= 10
    # Bounds near 0 may be the other way round.
    assert more >= 190


def test_the_curve_bound_holds_where_it_is_reached() -> None:
    """Randomised response has the largest probability of many correct guesses at its epsilon."""
    epsilon, rng = 1.5, np.random.default_rng(0)
    curve = PrivacyCurve(np.array([epsilon]), np.array([1e-12]))
    correct = rng.binomial(80, 1 / (1 + math.exp(-epsilon)), 2000)
    refuted = {
        number: curve_bound(CANARIES, 80, number, curve, 0.05) > 1 for number in np.unique(correct)
    }
    # 0.05 of 2000 and three standard deviations.
    assert 0 < sum(refuted[number] for number in correct) <= 129


def test_few_right_guesses_refute_no_curve() -> None:
    assert curve_bound(CANARIES, 80, 40, gaussian_curve(1.0), 0.05) == 0.0
    assert curve_bound(CANARIES, 80, 80, gaussian_curve(0.01), 0.05) > 10


@pytest.mark.parametrize("mu", [0.3, pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_the_gaussian_bound_is_wrong_as_often_as_it_says(mu: float) -> None:
    rng, true = np.random.default_rng(0), epsilon_of(mu**2 / 2, DELTA)
    wrong = 0
    for _ in range(200):
        inside, outside = rng.normal(mu, 1, 200), rng.normal(0, 1, 200)
        wrong += gaussian_bound(inside, outside, DELTA, 0.1) > true
    # 0.1 of 200, less for taking the larger of two deviations; three standard deviations.
    assert 3 <= wrong <= 33


def test_the_gaussian_bound_is_that_of_the_noncentral_t_distribution() -> None:
    inside = np.random.default_rng(1).normal(0.6, 1, 30)
    outside = 0.5 * inside
    seen = inside.mean() / inside.std(ddof=1) * math.sqrt(30)
    shift = optimize.brentq(lambda moved: stats.nct.sf(seen, 29, moved) - 0.05, 0.01, seen)
    expected = epsilon_of(shift**2 / 30 / 2, DELTA)
    assert gaussian_bound(inside, outside, DELTA, 0.05) == pytest.approx(expected, rel=2e-3)


@given(st.floats(0.1, 4), st.floats(0.3, 3), st.floats(0.3, 3))
@settings(max_examples=30)
def test_unequal_deviations_tell_no_less_than_the_larger_one(
    mean: float, inside: float, outside: float
) -> None:
    """The first step of the proof: one of these events has more than delta."""
    deviation = max(inside, outside)
    mu = mean / deviation
    epsilon = epsilon_of(mu**2 / 2, DELTA)
    threshold = (epsilon / mu + mu / 2) * deviation
    above = stats.norm.sf(threshold, mean, inside) - math.exp(epsilon) * stats.norm.sf(
        threshold, 0, outside
    )
    mirrored = mean - threshold
    below = stats.norm.cdf(mirrored, 0, outside) - math.exp(epsilon) * stats.norm.cdf(
        mirrored, mean, inside
    )
    assert max(above, below) >= DELTA * (1 - 1e-6)


def test_canaries_that_score_like_the_others_bound_nothing() -> None:
    same = np.linspace(-1, 1, 100)
    assert gaussian_bound(same, same, DELTA, 0.025) == 0.0
    assert gaussian_bound(same - 1, same, DELTA, 0.025) == 0.0


def test_without_noise_the_gaussian_bound_is_huge() -> None:
    noise = 1e-9 * np.arange(200.0)
    assert gaussian_bound(1 + noise, noise, DELTA, 0.025) > 100
