import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from fedsi.errors import UserError
from fedsi.privacy.mechanisms import banded as module
from fedsi.privacy.mechanisms.banded import (
    Banded,
    factorised,
    optimised_diagonals,
    optimised_square,
    toeplitz_column,
)
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.privacy.mechanisms.workload import Workload
from fedsi.schedule import Schedule
from tests.fedsi.privacy.mechanisms.matrices import (
    Matrix,
    draws,
    inverse,
    plan,
    searched_sensitivity,
    slow_workload,
    streamed,
)


def dense(diagonals: Matrix) -> Matrix:
    """Return C."""
    rounds, bands = diagonals.shape
    matrix = np.zeros((rounds, rounds))
    for j in range(bands):
        matrix[np.arange(j, rounds), np.arange(rounds - j)] = diagonals[j:, j]
    return matrix


def constant(rounds: int, momentum: float = 0.0) -> Workload:
    return Workload((1.0,) * rounds, momentum)


def toeplitz_matrix(rounds: int, bands: int) -> Matrix:
    """Return the best banded Toeplitz C, its columns scaled to norm 1."""
    first = toeplitz_column(rounds, bands, 0.0)
    matrix = np.tril(toeplitz(np.pad(first, (0, rounds - bands))))
    scaled: Matrix = matrix / np.linalg.norm(matrix, axis=0)
    return scaled


def error(matrix: Matrix, momentum: float = 0.0, schedule: Schedule | None = None) -> float:
    rates = (schedule or Schedule()).factors(len(matrix))
    workload = slow_workload(rates, momentum)
    return float(np.linalg.norm(workload @ np.linalg.inv(matrix)) / math.sqrt(len(matrix)))


@settings(max_examples=15)
@given(
    st.integers(4, 24),
    st.integers(1, 24),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([Schedule(), Schedule("cooldown", 2), Schedule("cosine", 2, 0.1)]),
)
def test_streamed_noise_is_that_of_the_matrix(
    rounds: int, bands: int, momentum: float, schedule: Schedule
) -> None:
    mechanism = build_mechanism(
        plan("banded", rounds, min_separation=bands, momentum=momentum, schedule=schedule)
    )
    assert isinstance(mechanism, Banded)
    fresh = draws(0, 5)
    expected = np.linalg.solve(
        dense(mechanism.diagonals), np.stack([fresh(t)(0) for t in range(1, rounds + 1)])
    )
    found = streamed(mechanism, rounds, fresh, 5)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("bands", [1, 2, 7, 30])
def test_columns_have_norm_one(bands: int) -> None:
    matrix = dense(optimised_diagonals(constant(30, 0.0), bands))
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), 1.0, rtol=1e-12)


def test_the_factor_is_lower_triangular_with_the_given_square() -> None:
    lower = np.tril(np.random.default_rng(0).uniform(0.1, 1.0, (9, 9)))
    found = factorised(torch.from_numpy(lower.T @ lower)).numpy()
    np.testing.assert_allclose(found, lower, atol=1e-10)


def test_sensitivity_is_that_of_a_search() -> None:
    for separation, participations in [(3, 4), (4, 2), (5, 9)]:
        mechanism = build_mechanism(
            plan("banded", 12, min_separation=separation, participations=participations)
        )
        assert isinstance(mechanism, Banded)
        searched = searched_sensitivity(
            np.abs(dense(mechanism.diagonals)), participations, separation
        )
        assert mechanism.sensitivity == pytest.approx(searched, rel=1e-10)


def test_separation_counts_from_round_to_round() -> None:
    """Participations x and x + b share no row of b bands, x and x + b - 1 do."""
    matrix = np.abs(dense(optimised_diagonals(constant(12, 0.0), 4)))
    assert searched_sensitivity(matrix, 3, 4) == pytest.approx(math.sqrt(3))
    assert searched_sensitivity(matrix, 3, 4 - 1) > 1.1 * math.sqrt(3)


def test_more_bands_than_separation_are_refused() -> None:
    with pytest.raises(UserError, match=r"privacy.bands=5 is more than server.min_separation=4"):
        build_mechanism(plan("banded", 12, min_separation=4, bands=5))
    build_mechanism(plan("banded", 12, min_separation=4, bands=4))


def test_one_band_is_independent_noise() -> None:
    mechanism = build_mechanism(plan("banded", 12, min_separation=4, bands=1))
    assert mechanism.initial_state(3) == {}
    others = {"what else a run remembers": np.zeros(1, np.float32)}
    assert mechanism.noise(others, 1, lambda _: np.ones(3, np.float32)).tolist() == [1.0] * 3
    np.testing.assert_allclose(inverse(mechanism, 12), np.eye(12), atol=1e-12)
    assert mechanism.sensitivity == math.sqrt(3)


def test_gradients() -> None:
    """No feasible matrix nearby is better than the optimum, which has a gradient of zero."""
    best = optimised_square(torch.eye(8, dtype=torch.float64), 3, constant(8, 0.5))
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


def test_all_entries_do_better_than_toeplitz() -> None:
    every_entry, of_toeplitz = (
        error(dense(optimised_diagonals(constant(60), 15))),
        toeplitz_matrix(60, 15),
    )
    assert 0.95 * error(of_toeplitz) < every_entry < 0.99 * error(of_toeplitz)


@pytest.mark.parametrize(("bands", "most"), [(60, 0.99), (20, 0.997), (2, 1.0001)])
def test_interpolated_entries_do_nearly_as_well(
    bands: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    directly = dense(optimised_diagonals(constant(200), bands))
    monkeypatch.setattr(module, "MOST_OPTIMISED_ROUNDS", 70)
    optimised_diagonals.cache_clear()
    interpolated = dense(optimised_diagonals(constant(200), bands))
    optimised_diagonals.cache_clear()
    np.testing.assert_allclose(np.linalg.norm(interpolated, axis=0), 1.0, rtol=1e-12)
    assert error(interpolated) < most * error(toeplitz_matrix(200, bands))
    assert error(interpolated) < 1.003 * error(directly)


@pytest.mark.parametrize(("bands", "of_cut_root", "most"), [(250, 6.471, 6.27), (32, 10.961, 9.75)])
def test_reference_losses(bands: int, of_cut_root: float, most: float) -> None:
    """1000 rounds, 4 participations 250 apart: the cut square root, and what optimising gains."""
    k = np.arange(1, bands)
    root = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    cut = dense(np.broadcast_to(root / np.linalg.norm(root), (1000, bands)))
    assert 2.0 * error(cut) == pytest.approx(of_cut_root, rel=1e-3)
    mechanism = build_mechanism(plan("banded", 1000, min_separation=250, bands=bands))
    assert mechanism.sensitivity == pytest.approx(2.0, rel=1e-12)
    assert isinstance(mechanism, Banded)
    assert 2.0 * error(dense(mechanism.diagonals)) < most


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
    with_it = dense(optimised_diagonals(constant(50, 0.9), 10))
    without = dense(optimised_diagonals(constant(50), 10))
    assert error(with_it, 0.9) < 0.95 * error(without, 0.9)
    assert error(without) < error(with_it)


def test_the_learning_rates_are_optimised_for() -> None:
    schedule = Schedule("cosine", 15)
    with_it = dense(optimised_diagonals(Workload(tuple(schedule.factors(60)), 0.9), 15))
    without = dense(optimised_diagonals(constant(60, 0.9), 15))
    assert error(with_it, 0.9, schedule) < 0.985 * error(without, 0.9, schedule)
    assert error(without, 0.9) < error(with_it, 0.9)


def test_the_optimum_does_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            optimised_diagonals.cache_clear()
            found.append(optimised_diagonals(constant(80, 0.0), 20))
        assert np.array_equal(found[0], found[1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
