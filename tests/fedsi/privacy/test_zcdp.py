"""The exact curve of a Gaussian mechanism, against published values and high precision."""

import math

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.privacy.sampled_accounting import zcdp_rdp_epsilon
from fedsi.privacy.zcdp import epsilon_of, log_delta_of, rho_of

RHOS = st.floats(-25, 12).map(math.exp)
DELTAS = st.floats(-60, -0.1).map(math.exp)


@pytest.mark.parametrize(
    ("rho", "epsilon"),
    [(0.1507, 3.42), (0.01434, 0.994)],
    ids=["Gboard es-ES, banded", "Gboard pt-BR and es-LatAm"],
)
def test_published_values(rho: float, epsilon: float) -> None:
    assert epsilon_of(rho, 1e-10) == pytest.approx(epsilon, rel=2e-3)


def test_the_published_value_of_a_tree_is_by_renyi_divergence() -> None:
    assert zcdp_rdp_epsilon(0.81, 1e-10) == pytest.approx(8.90, rel=0.01)
    assert epsilon_of(0.81, 1e-10) < 8.6


@pytest.mark.parametrize(
    ("rho", "epsilon"),
    [(0.1507, 3.42), (1e-12, 1e-6), (1e-3, 3.0), (50.0, 1.0), (50.0, 500.0), (5000.0, 5000.0)],
)
def test_delta_against_sixty_digits(rho: float, epsilon: float) -> None:
    with mpmath.workdps(60):
        mu = mpmath.sqrt(2 * mpmath.mpf(rho))
        delta = mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(
            -mu / 2 - epsilon / mu
        )
        expected = float(mpmath.log(delta))
    assert log_delta_of(rho, epsilon) == pytest.approx(expected, rel=1e-9)


@given(RHOS, DELTAS)
def test_epsilon_and_delta_round_trip(rho: float, delta: float) -> None:
    epsilon = epsilon_of(rho, delta)
    if epsilon > 1e-9:
        assert log_delta_of(rho, epsilon) == pytest.approx(math.log(delta), rel=1e-6)
        assert rho_of(epsilon, delta) == pytest.approx(rho, rel=1e-6)


@given(RHOS, DELTAS)
def test_more_rho_costs_more_and_more_delta_less(rho: float, delta: float) -> None:
    epsilon = epsilon_of(rho, delta)
    assert epsilon_of(1.1 * rho, delta) >= epsilon
    assert epsilon_of(rho, delta**0.9) <= epsilon


@given(RHOS, DELTAS)
def test_never_more_than_any_mechanism_of_that_rho_costs(rho: float, delta: float) -> None:
    assert epsilon_of(rho, delta) <= zcdp_rdp_epsilon(rho, delta) * (1 + 1e-9)


def test_nothing_and_everything_released() -> None:
    assert epsilon_of(0.0, 1e-6) == 0
    assert epsilon_of(math.inf, 1e-6) == math.inf
