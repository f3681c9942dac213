"""Intervals against SciPy and slow references, and their coverage by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from fedsi.seeds import Purpose, generator
from simulations.studies.statistics import (
    DRAWS,
    Interval,
    area_over_logarithm,
    bootstrap_interval,
    bootstrap_of_metric,
    first_at_most,
    holm,
    t_interval,
    t_test_p_value,
)


def test_the_t_interval_is_scipys() -> None:
    values = [0.3, -0.1, 0.25, 0.4]
    found = t_interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.estimate == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    alone = t_interval([0.2])
    assert alone == Interval(0.2, -math.inf, math.inf)
    assert alone.to_json() == {"estimate": 0.2, "low": None, "high": None}


def test_the_p_value_is_scipys_and_one_for_too_few_seeds() -> None:
    gaps = [0.1, 0.3, 0.25, -0.05]
    assert t_test_p_value(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert t_test_p_value([0.1, 0.1000001]) == 1.0
    assert t_test_p_value([0.25, 0.25, 0.25]) == 0.0
    assert t_test_p_value([0.0, 0.0, 0.0]) == 1.0


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0.001, 0.999))
def test_holm_keeps_what_stepping_down_keeps(p_values: list[float], level: float) -> None:
    kept, tests = [], len(p_values)
    for before, p in enumerate(sorted(p_values)):
        if p * (tests - before) > level:
            break
        kept.append(p)
    corrected = holm(p_values)
    assert (
        sorted(p for p, raised in zip(p_values, corrected, strict=True) if raised <= level) == kept
    )
    assert all(one <= raised <= 1 for one, raised in zip(p_values, corrected, strict=True))


def test_holm_errs_in_one_of_twenty_families_and_no_correction_in_more() -> None:
    draws = generator(5, Purpose.BOOTSTRAP).random((2000, 10))
    found = np.mean([min(holm(family)) < 0.05 for family in draws.tolist()])
    assert found == pytest.approx(0.05, abs=0.015)
    assert np.mean(draws.min(axis=1) < 0.05) > 0.3


def test_the_bootstrap_of_any_metric_is_the_twin_of_that_of_ratios() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.uniform(1, 5, (30, 2)) for _ in range(2))

    def ratio(rows: NDArray[np.float64]) -> float:
        return float(rows[:, 0].sum() / rows[:, 1].sum())

    slow = bootstrap_of_metric(ratio, first, second, 7)
    fast = bootstrap_interval(first[:, 0], second[:, 0], first[:, 1], second[:, 1], 7)
    assert (slow.low, slow.estimate, slow.high) == pytest.approx(
        (fast.low, fast.estimate, fast.high)
    )


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_t_interval_covers_as_often_as_it_says(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    hits = 0
    for _ in range(2000):
        # Arms share the effect of a seed, which pairing removes, however large it is.
        shared = 10 * rng.normal(size=seeds)
        found = t_interval(((shared + 0.3 + rng.normal(size=seeds)) - shared).tolist())
        hits += found.low <= 0.3 <= found.high
    # Three standard deviations of a share of 2,000 are .015.
    assert abs(hits / 2000 - 0.95) < 0.015
    assert coverage_of_normal_intervals(seeds) < 0.9  # what this test would find of those


def coverage_of_normal_intervals(seeds: int) -> float:
    """Return the coverage of 1.96 standard errors, which is too low for few seeds."""
    values = np.random.default_rng(seeds).normal(size=(2000, seeds))
    half = 1.96 * values.std(1, ddof=1) / math.sqrt(seeds)
    return float((np.abs(values.mean(1)) <= half).mean())


def clients(rng: np.random.Generator, count: int, gap: float) -> tuple[NDArray[np.float64], ...]:
    """Return losses of two arms and the targets of each client, which differ in size and level."""
    targets = rng.integers(5, 200, count).astype(np.float64)
    level = 5 + rng.normal(size=count)
    first = targets * (level + gap + 0.3 * rng.normal(size=count))
    second = targets * (level + 0.3 * rng.normal(size=count))
    return first, second, targets


def test_the_bootstrap_is_its_slow_twin() -> None:
    first, second, targets = clients(np.random.default_rng(0), 30, 0.1)
    found = bootstrap_interval(first, second, targets, targets, seed=7)
    taken = generator(7, Purpose.BOOTSTRAP).multinomial(30, [1 / 30] * 30, size=DRAWS)
    gaps = []
    for counts in taken:
        chosen = np.repeat(np.arange(30), counts)
        whole = targets[chosen].sum()
        gaps.append(first[chosen].sum() / whole - second[chosen].sum() / whole)
    low, high = np.quantile(gaps, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.estimate == pytest.approx((first.sum() - second.sum()) / targets.sum())


def test_the_bootstrap_is_a_pure_function_of_the_seed() -> None:
    first, second, targets = clients(np.random.default_rng(0), 30, 0.1)
    once, again, other = (
        bootstrap_interval(first, second, targets, targets, seed=seed) for seed in (1, 1, 2)
    )
    assert once == again != other
    single = bootstrap_interval(first[:1], second[:1], targets[:1], targets[:1], seed=1)
    assert (single.low, single.high) == (-math.inf, math.inf)


def test_the_bootstrap_agrees_with_scipys() -> None:
    first, second, targets = clients(np.random.default_rng(3), 100, 0.1)

    def ratio(a: NDArray[np.float64], b: NDArray[np.float64], n: NDArray[np.float64]) -> float:
        return float((a.sum() - b.sum()) / n.sum())

    theirs = stats.bootstrap(
        (first, second, targets), ratio, n_resamples=DRAWS, paired=True, vectorized=False,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    ours = bootstrap_interval(first, second, targets, targets, seed=0)
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.1 * width)


def test_the_bootstrap_covers_as_often_as_it_says_and_pairing_is_what_makes_it_narrow() -> None:
    rng = np.random.default_rng(1)
    hits, times, paired, unpaired = 0, 200, [], []
    for seed in range(times):
        first, second, targets = clients(rng, 100, 0.1)
        found = bootstrap_interval(first, second, targets, targets, seed=seed)
        hits += found.low <= 0.1 <= found.high
        shuffled = rng.permutation(100)
        apart = bootstrap_interval(first, second[shuffled], targets, targets[shuffled], seed=seed)
        paired.append(found.high - found.low)
        unpaired.append(apart.high - apart.low)
    # Three standard deviations of a share of 200 are .046.
    assert 0.90 <= hits / times <= 0.996
    assert np.mean(unpaired) > 2 * np.mean(paired)


def test_the_first_loss_at_most_a_target() -> None:
    assert first_at_most([6.0, 5.0, 5.5, 4.0], 5.0) == 1
    assert first_at_most([6.0, 5.5], 5.0) is None


def test_the_area_is_a_mean_over_the_logarithm() -> None:
    assert area_over_logarithm([0.1, 1, 10], [5, 4, 5], 6) == pytest.approx(4.5)
    # Uneven steps weigh by their length: a quarter of the range, and three quarters.
    assert area_over_logarithm([1, 10, 10_000], [4, 4, 6], 6) == pytest.approx(4.75)
    # One that diverged, and one that is worse than counting words, count the same.
    diverged = area_over_logarithm([1, 10], [4, math.inf], 6)
    assert diverged == area_over_logarithm([1, 10], [4, 7.4], 6) == pytest.approx(5)
