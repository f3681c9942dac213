"""The compared mechanisms, against dense matrices and a search over all participations."""

import math

import numpy as np
import pytest
from scipy.linalg import toeplitz

from simulations.benchmarks.correlated_noise import (
    compared,
    fractional_root,
    planned,
    toeplitz_losses,
)
from tests.fedsi.privacy.mechanisms.matrices import searched_sensitivity


@pytest.mark.parametrize(("gamma", "bands"), [(0.5, 4), (0.3, 12), (0.9, 2)])
def test_losses_are_those_of_the_matrix(gamma: float, bands: int) -> None:
    plan, short = planned(12, 3, 3), fractional_root(gamma, bands)
    column = np.zeros(12)
    column[:bands] = short
    inverse = np.tril(toeplitz(column))
    matrix = np.linalg.inv(inverse)
    dense = []
    for norms in (np.ones(12), np.linalg.norm(matrix, axis=0)):
        errors = np.sum((np.tri(12) @ np.diag(norms) @ inverse) ** 2, axis=1)
        largest = searched_sensitivity(matrix / norms, 3, 3)
        dense.append((largest * math.sqrt(errors.mean()), largest * math.sqrt(errors[-1])))
    found = list(toeplitz_losses(plan, short))
    assert found
    for one, expected in zip(found, dense, strict=False):
        assert one == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_blt_has_the_least_noise() -> None:
    found = compared(planned(200, 50, 2))
    assert found["BLT"][2] == 2
    assert found["BLT"][0] == min(mean for mean, _, _ in found.values())
    assert found["BLT, objective `last`"][1] == min(last for _, last, _ in found.values())
