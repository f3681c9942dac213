import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from fedsi.privacy.mechanisms.blt import BufferedToeplitz, column, inverse_column, residues
from fedsi.privacy.mechanisms.table import build_mechanism
from fedsi.schedule import Schedule
from tests.fedsi.privacy.mechanisms.matrices import (
    Matrix,
    draws,
    loss,
    plan,
    searched_sensitivity,
    slow_workload,
    streamed,
)


def dense(mechanism: BufferedToeplitz, rounds: int) -> Matrix:
    """Return C."""
    first = column(np.array(mechanism.decays), np.array(mechanism.weights), rounds)
    return np.tril(toeplitz(first))


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
        assert mechanism.sensitivity == pytest.approx(searched, rel=1e-12)


def test_separation_counts_from_round_to_round() -> None:
    mechanism = blt(12, 3, 2, participations=3)
    matrix = dense(mechanism, 12)
    assert mechanism.sensitivity == pytest.approx(searched_sensitivity(matrix, 3, 3))
    assert mechanism.sensitivity > 1.01 * searched_sensitivity(matrix, 3, 3 + 1)


@pytest.mark.parametrize(("separation", "expected"), [(1000, 3.05), (250, 6.65)])
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
        inverse = inverse_column(np.array(found.decays), np.array(found.weights), 2000)
        squares = np.arange(2000, 0, -1) * np.cumsum(inverse) ** 2
        return found.sensitivity * math.sqrt(squares.sum() / 2000)

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
