import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from fedsi.errors import UserError
from fedsi.privacy.mechanisms import banded as module
from fedsi.privacy.mechanisms import build
from fedsi.privacy.mechanisms.banded import (
    Banded,
    factorised,
    optimised,
    optimised_square,
    toeplitz_column,
)
from fedsi.privacy.mechanisms.workload import coefficients
from tests.fedsi.privacy.mechanisms.matrices import (
    Matrix,
    draws,
    inverse,
    loss,
    plan,
    searched_sensitivity,
    streamed,
)


def dense(diagonals: Matrix) -> Matrix:
    """Return C."""
    rounds, bands = diagonals.shape
    matrix = np.zeros((rounds, rounds))
    for j in range(bands):
        matrix[np.arange(j, rounds), np.arange(rounds - j)] = diagonals[j:, j]
    return matrix


def error(matrix: Matrix, momentum: float = 0.0) -> float:
    workload = np.tril(toeplitz(coefficients(len(matrix), momentum)))
    return float(np.linalg.norm(workload @ np.linalg.inv(matrix)) / math.sqrt(len(matrix)))


@settings(max_examples=15)
@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([0.0, 0.9]))
def test_streamed_noise_is_that_of_the_matrix(rounds: int, bands: int, momentum: float) -> None:
    mechanism = build(plan("banded", rounds, min_separation=bands, momentum=momentum))
    assert isinstance(mechanism, Banded)
    fresh = draws(0, 5)
    expected = np.linalg.solve(
        dense(mechanism.diagonals), np.stack([fresh(t)(0) for t in range(1, rounds + 1)])
    )
    found = streamed(mechanism, rounds, fresh, 5)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("bands", [1, 2, 7, 30])
def test_columns_have_norm_one(bands: int) -> None:
    matrix = dense(optimised(30, bands, 0.0))
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), 1.0, rtol=1e-12)


def test_the_factor_is_lower_triangular_with_the_given_square() -> None:
    lower = np.tril(np.random.default_rng(0).uniform(0.1, 1.0, (9, 9)))
    found = factorised(torch.from_numpy(lower.T @ lower)).numpy()
    np.testing.assert_allclose(found, lower, atol=1e-10)


def test_sensitivity_is_that_of_a_search() -> None:
    for separation, participations in [(3, 4), (4, 2), (5, 9)]:
        mechanism = build(
            plan("banded", 12, min_separation=separation, participations=participations)
        )
        assert isinstance(mechanism, Banded)
        searched = searched_sensitivity(
            np.abs(dense(mechanism.diagonals)), participations, separation
        )
        assert mechanism.sensitivity == pytest.approx(searched, rel=1e-10)


def test_separation_counts_from_round_to_round() -> None:
    """Participations x and x + b share no row of b bands, x and x + b - 1 do."""
    matrix = np.abs(dense(optimised(12, 4, 0.0)))
    assert searched_sensitivity(matrix, 3, 4) == pytest.approx(math.sqrt(3))
    assert searched_sensitivity(matrix, 3, 4 - 1) > 1.1 * math.sqrt(3)


def test_more_bands_than_separation_are_refused() -> None:
    with pytest.raises(UserError, match=r"privacy.bands=5 is more than server.min_separation=4"):
        build(plan("banded", 12, min_separation=4, bands=5))
    build(plan("banded", 12, min_separation=4, bands=4))


def test_one_band_is_independent_noise() -> None:
    mechanism = build(plan("banded", 12, min_separation=4, bands=1))
    assert mechanism.initial_state(3) == {}
    np.testing.assert_allclose(inverse(mechanism, 12), np.eye(12), atol=1e-12)
    assert mechanism.sensitivity == math.sqrt(3)


def test_gradients() -> None:
    """No feasible matrix nearby is better than the optimum, which has a gradient of zero."""
    best = optimised_square(torch.eye(8, dtype=torch.float64), 3, 0.5)
    lowest = error(factorised(best).numpy(), 0.5)
    for seed in range(20):
        other = factorised(best).numpy().copy()
        rows, columns = np.nonzero(other)
        other[rows, columns] += 0.02 * np.random.default_rng(seed).standard_normal(len(rows))
        other /= np.linalg.norm(other, axis=0)
        assert error(other, 0.5) > lowest
    first = toeplitz_column(40, 6, 0.5)
    at_best = error(dense(np.tile(first, (40, 1))), 0.5)
    for j in range(1, 6):
        for step in (-0.02, 0.02):
            other = first.copy()
            other[j] += step
            other /= np.linalg.norm(other)
            assert error(dense(np.tile(other, (40, 1))), 0.5) > at_best


def test_all_entries_do_better_than_toeplitz(monkeypatch: pytest.MonkeyPatch) -> None:
    every_entry = error(dense(optimised(60, 15, 0.0)))
    monkeypatch.setattr(module, "MOST_DENSE_ROUNDS", 59)
    optimised.cache_clear()
    of_toeplitz = error(dense(optimised(60, 15, 0.0)))
    optimised.cache_clear()
    assert 0.95 * of_toeplitz < every_entry < 0.99 * of_toeplitz


@pytest.mark.parametrize(("bands", "of_cut_root", "most"), [(250, 6.471, 6.43), (32, 10.961, 9.83)])
def test_reference_losses(
    bands: int, of_cut_root: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1000 rounds, 4 participations 250 apart: the cut square root, and what optimising gains."""
    k = np.arange(1, bands)
    root = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    cut = Banded(2.0, np.broadcast_to(root / np.linalg.norm(root), (1000, bands)))
    assert loss(cut, 1000) == pytest.approx(of_cut_root, rel=1e-3)
    monkeypatch.setattr(module, "MOST_DENSE_ROUNDS", 999)
    optimised.cache_clear()
    mechanism = build(plan("banded", 1000, min_separation=250, bands=bands))
    optimised.cache_clear()
    assert mechanism.sensitivity == 2.0
    assert loss(mechanism, 1000) < most


def test_a_search_that_explodes_goes_on() -> None:
    """Two bands over many rounds: a second entry above the first has an inverse that overflows."""
    first = toeplitz_column(1500, 2, 0.0)
    scanned = np.linspace(0.5, 0.999, 500)
    losses = []
    for second in scanned:
        errors = np.cumsum((-second) ** np.arange(1500))
        losses.append(np.sum(np.arange(1500, 0, -1) * errors**2) * (1 + second**2))
    assert first[1] / first[0] == pytest.approx(scanned[np.argmin(losses)], abs=0.002)


def test_momentum_is_optimised_for() -> None:
    with_it, without = dense(optimised(50, 10, 0.9)), dense(optimised(50, 10, 0.0))
    assert error(with_it, 0.9) < 0.95 * error(without, 0.9)
    assert error(without) < error(with_it)


def test_the_optimum_does_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            optimised.cache_clear()
            found.append(optimised(80, 20, 0.0))
        assert np.array_equal(found[0], found[1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
