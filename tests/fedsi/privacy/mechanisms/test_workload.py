"""The matrix that noise is optimised for, against iterates computed step by step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from fedsi.privacy.mechanisms.workload import Workload, workload_of
from fedsi.schedule import Schedule
from tests.fedsi.privacy.mechanisms.matrices import Matrix, plan, slow_workload

SCHEDULES = [
    Schedule(),
    Schedule("warm_up", 3),
    Schedule("cosine", 2, 0.1),
    Schedule("cooldown", 1, 0.05),
]


def workload(schedule: Schedule, rounds: int, momentum: float) -> Workload:
    return workload_of(plan("blt", rounds, momentum=momentum, schedule=schedule))


def slow_error(found: Workload, inverse: Matrix) -> float:
    matrix = slow_workload(np.array(found.factors), found.momentum) @ np.tril(toeplitz(inverse))
    return float(np.sum(matrix**2)) / found.rounds


@given(st.sampled_from(SCHEDULES), st.integers(4, 30), st.sampled_from([0.0, 0.5, 0.95]))
def test_the_matrix_and_the_error(schedule: Schedule, rounds: int, momentum: float) -> None:
    found = workload(schedule, rounds, momentum)
    expected = slow_workload(schedule.factors(rounds), momentum)
    np.testing.assert_allclose(found.matrix(), expected, atol=1e-12)
    inverse = np.random.default_rng(rounds).standard_normal(rounds)
    error = found.mean_squared_error(inverse)
    assert error == pytest.approx(slow_error(found, inverse), rel=1e-10)
    scales = np.linspace(2, 1, rounds)
    noise = expected @ np.diag(scales) @ np.tril(toeplitz(inverse))
    variances = np.sum(noise**2, axis=1)
    errors = found.scaled_errors(inverse, scales)
    assert errors == pytest.approx((variances.mean(), variances[-1]), rel=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_error_over_many_rounds_is_sampled(schedule: Schedule) -> None:
    found = workload(schedule, 500, 0.9)
    inverse = np.concatenate([[1.0], -0.3 * 0.99 ** np.arange(499)])
    error = found.mean_squared_error(inverse)
    assert error == pytest.approx(slow_error(found, inverse), rel=0.003)


def test_a_coarser_workload_takes_the_same_course() -> None:
    schedule = Schedule("cooldown", 40, 0.1)
    coarse = workload(schedule, 400, 0.9).coarser(100)
    assert coarse.momentum == pytest.approx(0.9**4)
    expected = Schedule("cooldown", 10, 0.1).factors(100)
    np.testing.assert_allclose(coarse.factors, expected, atol=0.05)
