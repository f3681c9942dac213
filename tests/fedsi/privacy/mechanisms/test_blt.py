import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from fedsi.plan import Plan
from fedsi.privacy.mechanisms.blt import MOST_ADDED, BufferedToeplitz
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.privacy.mechanisms.toeplitz import (
    column,
    column_norms,
    inverse_column,
    residues,
    toeplitz_sensitivities,
)
from fedsi.privacy.mechanisms.workload import workload_of
from fedsi.schedule import Schedule
from tests.fedsi.privacy.mechanisms.matrices import (
    Matrix,
    draws,
    loss,
    patterns,
    plan,
    searched_sensitivity,
    slow_workload,
    streamed,
)


def dense(mechanism: BufferedToeplitz, rounds: int) -> Matrix:
    """Return C."""
    first = column(np.array(mechanism.decays), np.array(mechanism.weights), rounds)
    matrix: Matrix = np.tril(toeplitz(first)) / mechanism.norms[:rounds]
    return matrix


def blt(rounds: int, separation: int, buffers: int | None = None, **more: Any) -> BufferedToeplitz:
    mechanism = build_mechanism(
        plan("blt", rounds, min_separation=separation, buffers=buffers, **more)
    )
    assert isinstance(mechanism, BufferedToeplitz)
    return mechanism


@pytest.mark.parametrize("buffers", [1, 2, 3])
@pytest.mark.parametrize("schedule", [Schedule(), Schedule("cooldown", 5)])
def test_streamed_noise_is_that_of_the_matrix(buffers: int, schedule: Schedule) -> None:
    mechanism, fresh = blt(40, 13, buffers, schedule=schedule, momentum=0.5), draws(0, 5)
    assert len(mechanism.decays) == buffers
    z = np.stack([fresh(t)(0) for t in range(1, 41)])
    expected = np.linalg.solve(dense(mechanism, 40), z)
    np.testing.assert_allclose(streamed(mechanism, 40, fresh, 5), expected, atol=1e-10)


@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=6).filter(lambda r: len(r) % 2 == 0))
def test_exchanging_poles_and_zeros_inverts(ratios: list[float]) -> None:
    ordered: Matrix = np.cumprod(np.array(ratios))
    poles, zeros = ordered[::2], ordered[1::2]
    first = column(poles, residues(poles, zeros), 20)
    inverse = column(zeros, residues(zeros, poles), 20)
    np.testing.assert_allclose(np.convolve(first, inverse)[:20], np.eye(20)[0], atol=1e-10)
    assert np.all(np.diff(first) <= 1e-12)
    assert np.all(first >= 0)


def test_sensitivity_is_that_of_a_search() -> None:
    for rounds, separation, participations in [(12, 3, 3), (13, 4, 9), (12, 12, 1), (10, 1, 4)]:
        mechanism = blt(rounds, separation, 2, participations=participations)
        searched = searched_sensitivity(dense(mechanism, rounds), participations, separation)
        assert searched * (1 - 1e-12) <= mechanism.sensitivity < searched * (1 + 1e-6)


@given(
    st.integers(2, 11), st.integers(1, 4), st.integers(1, 4),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3),
)  # fmt: skip
def test_normalised_columns_have_the_sensitivity_that_is_proven(
    rounds: int, separation: int, most: int, mixture: list[tuple[float, float]]
) -> None:
    """All participations, all signs, for the first rows of mixtures of geometric series."""
    first = np.eye(1, rounds)[0] * 0.1
    for decay, share in mixture:
        first += share * decay ** np.arange(rounds)
    norms = column_norms(first)
    matrix = np.tril(toeplitz(first)) / norms
    priced = plan("blt", rounds, min_separation=min(separation, rounds), participations=most)
    found = toeplitz_sensitivities(priced, first, norms)
    for last in range(1, rounds + 1):
        allowed = priced.participations_within(last)
        searched = searched_with_signs(matrix[:last, :last], allowed, priced.min_separation)
        assert found[last - 1] == pytest.approx(searched, rel=1e-9)


def searched_with_signs(matrix: Matrix, participations: int, separation: int) -> float:
    """Return the largest norm of sums of columns of either sign."""
    largest = 0.0
    for chosen in patterns(matrix.shape[1], participations, separation):
        for signs in itertools.product((1.0, -1.0), repeat=len(chosen) - 1):
            total = matrix[:, list(chosen)] @ np.array([1.0, *signs])
            largest = max(largest, float(np.linalg.norm(total)))
    return largest


def test_the_proof_needs_log_convexity() -> None:
    """Where c falls late, late columns have more in common than early ones."""
    first = np.array([1.0, 1.0, 1.0, 0.1, 0.0, 0.0])
    norms = column_norms(first)
    priced = plan("blt", 6, min_separation=2, participations=2)
    searched = searched_sensitivity(np.tril(toeplitz(first)) / norms, 2, 2)
    assert searched > 1.005 * toeplitz_sensitivities(priced, first, norms)[-1]


@pytest.mark.parametrize("seed", range(3))
def test_directions_that_differ_move_it_less(seed: int) -> None:
    mechanism, rng = blt(12, 3, 2, participations=4), np.random.default_rng(seed)
    matrix = dense(mechanism, 12)
    for chosen in patterns(12, 4, 3):
        updates = np.zeros((12, 3))
        updates[list(chosen)] = rng.standard_normal((len(chosen), 3))
        updates /= np.maximum(np.linalg.norm(updates, axis=1, keepdims=True), 1e-300)
        assert np.linalg.norm(matrix @ updates) <= mechanism.sensitivity * (1 + 1e-12)


def iterate_losses(mechanism: BufferedToeplitz, workload: Matrix) -> tuple[float, float]:
    """Return sensitivity times error, of the mean over iterates and of the last one."""
    rounds = len(workload)
    variances = np.sum((workload @ np.linalg.inv(dense(mechanism, rounds))) ** 2, axis=1)
    factor = mechanism.sensitivity
    return factor * math.sqrt(variances.mean()), factor * math.sqrt(variances[-1])


def without_norms(mechanism: BufferedToeplitz, priced: Plan) -> BufferedToeplitz:
    """Return the same Toeplitz matrix with the columns that it has by itself."""
    first = column(np.array(mechanism.decays), np.array(mechanism.weights), priced.rounds)
    sensitivities = toeplitz_sensitivities(priced, first)
    return replace(mechanism, norms=np.ones(priced.rounds), sensitivities=sensitivities)


def test_the_last_model_has_less_noise() -> None:
    """By 10 % with norms, and by 12 % more if it is the objective; the mean is the cost."""
    workload = np.tri(200)
    mean = blt(200, 50, participations=2)
    plain = without_norms(mean, plan("blt", 200, min_separation=50, participations=2))
    last = blt(200, 50, participations=2, objective="last")
    assert iterate_losses(plain, workload) == pytest.approx((3.890, 4.601), rel=1e-3)
    assert iterate_losses(mean, workload) == pytest.approx((3.856, 4.162), rel=1e-3)
    assert iterate_losses(last, workload) == pytest.approx((4.047, 3.674), rel=2e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("schedule", [Schedule(), Schedule("cooldown", 0, 0.05)])
@pytest.mark.parametrize(("rounds", "separation"), [(10, 3), (60, 20)])
def test_norms_are_used_where_they_help(
    rounds: int, separation: int, schedule: Schedule, momentum: float
) -> None:
    more: dict[str, Any] = {"schedule": schedule, "momentum": momentum, "buffers": 1}
    workload = slow_workload(schedule.factors(rounds), momentum)
    mean, last = (blt(rounds, separation, objective=o, **more) for o in ("mean", "last"))
    plain = without_norms(mean, plan("blt", rounds, min_separation=separation, **more))
    of_plain, of_mean, of_last = (iterate_losses(m, workload) for m in (plain, mean, last))
    assert of_mean[0] <= of_plain[0] * (1 + 1e-4)
    assert of_last[1] < of_mean[1]
    assert of_last[0] < (1 + MOST_ADDED) * of_mean[0] * 1.003


def test_norms_do_not_always_help() -> None:
    """In a few rounds with many participations late columns may be long without costing more."""
    assert np.all(blt(10, 3).norms == 1)
    norms = blt(60, 20).norms
    assert norms[0] > 1.4 * norms[-1] == 1.4


def test_separation_counts_from_round_to_round() -> None:
    mechanism = blt(12, 3, 2, participations=3)
    matrix = dense(mechanism, 12)
    assert mechanism.sensitivity == pytest.approx(searched_sensitivity(matrix, 3, 3), rel=1e-6)
    assert mechanism.sensitivity > 1.01 * searched_sensitivity(matrix, 3, 3 + 1)


@pytest.mark.parametrize(("separation", "expected"), [(1000, 3.00), (250, 6.62)])
def test_reference_losses(separation: int, expected: float) -> None:
    assert loss(blt(1000, separation, 3), 1000) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize(("participations", "identity", "root"), [(1, 22.4, 3.10), (4, 44.7, 7.53)])
def test_the_yardsticks(participations: int, identity: float, root: float) -> None:
    """The losses of independent noise and of the square root of the prefix sums."""
    k = np.arange(1, 1000)
    first = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    total = sum(np.pad(first, (i * 250, 0))[:1000] for i in range(participations))
    root_loss = np.linalg.norm(total) * math.sqrt(
        np.sum((1000 - np.arange(1000)) * first**2) / 1000
    )
    assert root_loss == pytest.approx(root, rel=0.002)
    assert math.sqrt(participations * 1001 / 2) == pytest.approx(identity, rel=0.002)
    assert loss(blt(1000, 1000 // participations), 1000) < root_loss


@pytest.mark.parametrize(("separation", "expected"), [(150, 16.099), (153, 15.849)])
def test_two_buffers_are_not_one_buffer_twice(separation: int, expected: float) -> None:
    """From a start over the rounds alone, the search ended at the loss of one buffer."""

    def quick_loss(found: BufferedToeplitz) -> float:
        priced = plan("blt", 2000, min_separation=separation)
        return (
            math.sqrt(workload_of(priced).scaled_errors(*inverse_of(found))[0]) * found.sensitivity
        )

    def inverse_of(found: BufferedToeplitz) -> tuple[Matrix, Matrix]:
        return inverse_column(np.array(found.decays), np.array(found.weights), 2000), found.norms

    assert quick_loss(blt(2000, separation)) == pytest.approx(expected, rel=1e-3)
    assert quick_loss(blt(2000, separation, 1)) > 1.025 * expected


def test_buffers_are_added_while_they_pay() -> None:
    found = blt(1000, 1000)
    count = len(found.decays)
    assert loss(blt(1000, 1000, count - 1), 1000) > 1.01 * loss(found, 1000)
    assert loss(blt(1000, 1000, count + 1), 1000) > 0.99 * loss(found, 1000)


def test_momentum_is_optimised_for() -> None:
    assert blt(200, 50, 2, momentum=0.9).decays != blt(200, 50, 2).decays


def test_the_learning_rates_are_optimised_for() -> None:
    schedule = Schedule("cooldown", final_fraction=0.05)
    workload = slow_workload(schedule.factors(300), 0.0)

    def of(mechanism: BufferedToeplitz) -> float:
        error = np.linalg.norm(workload @ np.linalg.inv(dense(mechanism, 300)))
        return mechanism.sensitivity * float(error)

    assert of(blt(300, 300, 2, schedule=schedule)) < 0.9995 * of(blt(300, 300, 2))


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_few_rounds(rounds: int) -> None:
    """One round alone costs and gains nothing; more are never worse than independent noise."""
    mechanism = blt(rounds, rounds)
    independent = math.sqrt((rounds + 1) / 2)
    assert loss(mechanism, rounds) <= independent * (1 + 1e-4)


def test_parameters_are_exact_in_float32() -> None:
    mechanism = blt(200, 50)
    for number in mechanism.decays + mechanism.weights:
        assert float(np.float32(number)) == number
