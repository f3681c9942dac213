import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, kstest

from fedsi.privacy.mechanisms import secure_noise
from fedsi.privacy.mechanisms.secure_noise import discrete_gaussian, secure_normal


def is_distributed(samples: NDArray[np.int64], sigma: float) -> bool:
    """Return whether a chi-squared test at 10^-8 accepts the discrete Gaussian, bin by bin."""
    reach = int(8 * sigma) + 3
    values = np.arange(-reach, reach + 1)
    expected = np.exp(-(values**2) / (2 * sigma**2))
    expected *= len(samples) / expected.sum()
    counts = np.bincount(np.clip(samples, -reach, reach) + reach, minlength=len(values))
    likely = expected >= 10
    parts = (counts[likely] - expected[likely]) ** 2 / expected[likely]
    rare = expected[~likely].sum()
    beyond = (counts[~likely].sum() - rare) ** 2 / max(rare, 1.0)
    return bool(parts.sum() + beyond < chi2.ppf(1 - 1e-8, likely.sum()))


@pytest.mark.parametrize("sigma", [0.3, 0.75, 1.0, 2.5, 7.0])
def test_small_sigmas_bin_by_bin(sigma: float) -> None:
    samples = discrete_gaussian(sigma, 40_000)
    assert is_distributed(samples, sigma)
    assert not is_distributed(samples, sigma * 2 / 3)
    assert not is_distributed(samples, sigma * 3 / 2)


@pytest.mark.parametrize("sigma", [1e4, 1e9, 2.0**36 * 0.7, 2.0**53])
def test_large_sigmas_are_normal(sigma: float) -> None:
    samples = discrete_gaussian(sigma, 20_000) / sigma
    assert kstest(samples, "norm").pvalue > 1e-8
    assert kstest(samples * 2 / 3, "norm").pvalue < 1e-8
    assert kstest(samples * 3 / 2, "norm").pvalue < 1e-8


def test_all_bits_of_large_samples_vary() -> None:
    samples = np.abs(discrete_gaussian(2.0**40, 10_000))
    for bit in range(30):
        assert 0.4 < np.mean(samples >> bit & 1) < 0.6


def test_the_exact_path_has_the_same_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every comparison in doubt, all of them are made with fractions."""
    calls = []
    is_below = secure_noise._is_below

    def counted(bits: int, count: int, probability: Fraction) -> bool:
        calls.append(count)
        return is_below(bits, count, probability)

    monkeypatch.setattr(secure_noise, "DOUBT", 2.0)
    monkeypatch.setattr(secure_noise, "_is_below", counted)
    samples = discrete_gaussian(2.5, 2_000)
    assert len(calls) > 10_000
    assert is_distributed(samples, 2.5)
    assert not is_distributed(samples, 3.75)


def test_exact_comparisons_agree_with_floats_where_these_are_sure() -> None:
    for bits, probability, below in [
        (0, Fraction(1, 3), True),
        (1 << 52, Fraction(1, 3), False),
        ((1 << 53) - 1, Fraction(1), True),
        (0, Fraction(0), False),
    ]:
        assert secure_noise._is_below(bits, 53, probability) is below


def test_a_tie_goes_on_with_more_bits() -> None:
    """A uniform that starts like the probability is below it as often as the rest says."""
    half = Fraction(1, 2) + Fraction(1, 2**54)
    below = sum(secure_noise._is_below(1 << 52, 53, half) for _ in range(2_000))
    assert 850 < below < 1150


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0, 2.0, 3.7])
def test_bernoulli_exp(exponent: float) -> None:
    size = 20_000
    mean = secure_noise._bernoulli_exp(np.full(size, exponent), lambda _: Fraction(exponent)).mean()
    expected = math.exp(-exponent)
    assert abs(mean - expected) <= 6 * math.sqrt(expected * (1 - expected) / size)


@pytest.mark.parametrize("bound", [1, 2, 3, 1000, 2**53 + 1])
def test_uniform_integers(bound: int) -> None:
    drawn = secure_noise._uniform_integers(bound, 10_000)
    assert drawn.min() >= 0
    assert drawn.max() < bound
    assert abs(drawn.mean() - (bound - 1) / 2) <= 6 * bound / math.sqrt(12 * 10_000)


def test_no_two_draws_are_the_same() -> None:
    assert not np.array_equal(discrete_gaussian(1e6, 100), discrete_gaussian(1e6, 100))


def test_sizes() -> None:
    assert discrete_gaussian(3.0, 0).shape == (0,)
    assert discrete_gaussian(3.0, 7).dtype == np.int64
    assert np.all(discrete_gaussian(2.0**-20, 100) == 0)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, 2.0**54])
def test_impossible_sigmas_are_refused(sigma: float) -> None:
    with pytest.raises(ValueError, match="is not in"):
        discrete_gaussian(sigma, 1)


def test_normal_numbers_are_normal_and_fine() -> None:
    samples = secure_normal(200_000)
    assert samples.dtype == np.float64
    assert kstest(samples, "norm").pvalue > 1e-8
    for factor in (2 / 3, 3 / 2):
        assert kstest(samples[:20_000] * factor, "norm").pvalue < 1e-8
    for first, second in ((samples[:-1], samples[1:]), (samples, secure_normal(200_000))):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5.7 / math.sqrt(200_000)
    # Every bit down to the grid of sums varies, also far out, where 53 bits alone leave gaps.
    far = np.sort(np.abs(samples))[-2000:]
    grid = (far * 2.0**36).astype(np.int64)
    for bit in range(20):
        assert 0.4 < np.mean(grid >> bit & 1) < 0.6


def test_the_ends_of_normal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.array([0, 1, 2**64 - 2, 2**64 - 1], np.uint64)
    monkeypatch.setattr(secure_noise, "_words", lambda _: words)
    assert secure_normal(4) == pytest.approx([9.155, -9.155, 0, 0], abs=1e-3)
