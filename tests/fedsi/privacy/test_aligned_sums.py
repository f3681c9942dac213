import numpy as np
import pytest

from fedsi.plan import Plan
from fedsi.privacy.aligned_sums import matched_sums, noise_covariance
from fedsi.privacy.mechanisms.table import build_mechanism
from tests.fedsi.privacy.mechanisms.matrices import inverse

ROUNDS, SEPARATION = 20, 4


def plan(mechanism: str) -> Plan:
    return Plan(
        mechanism, "shuffled", 600, 100, ROUNDS, 1.0, 1e-5, min_separation=SEPARATION, momentum=0.5
    )


@pytest.mark.parametrize("mechanism", ["banded", "blt"])
def test_the_covariance_is_that_of_the_matrix(mechanism: str) -> None:
    built = build_mechanism(plan(mechanism))
    rows = inverse(built, ROUNDS)
    assert np.allclose(noise_covariance(built, ROUNDS), rows @ rows.T, atol=1e-5)


@pytest.mark.parametrize("mechanism", ["tree", "banded", "blt"])
def test_a_matched_sum_moves_by_at_most_the_sensitivity_and_has_noise_one(mechanism: str) -> None:
    built = build_mechanism(plan(mechanism))
    covariance = noise_covariance(built, ROUNDS)
    assert np.allclose(np.sqrt(np.diag(covariance)), built.row_norms(ROUNDS), rtol=1e-5)
    turns = np.zeros((ROUNDS, 3), np.bool_)
    turns[[0, 6, 12, 18], 0] = turns[[5, 9, 17], 1] = True
    moved = matched_sums(turns.astype(float), turns, covariance)
    assert (moved <= built.sensitivity * (1 + 1e-6)).all()
    assert moved[0] > moved[1] > moved[2] == 0
    roots = np.linalg.cholesky(covariance)
    noise = np.array(
        [matched_sums(np.repeat(root[:, None], 3, 1), turns, covariance) for root in roots.T]
    )
    assert np.allclose((noise**2).sum(0), [1, 1, 0])
    unweighted = turns.sum(0) / np.sqrt(covariance.sum())
    assert moved[0] > 1.15 * unweighted[0]


def test_the_worst_participations_move_it_by_the_sensitivity() -> None:
    built = build_mechanism(plan("blt"))
    turns = np.zeros((ROUNDS, 1), np.bool_)
    turns[[0, 4, 8, 12], 0] = True
    moved = matched_sums(turns.astype(float), turns, noise_covariance(built, ROUNDS))
    assert moved[0] == pytest.approx(built.sensitivity, rel=1e-5)
