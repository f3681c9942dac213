"""Properties of every mechanism."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from fedsi.plan import Plan
from fedsi.privacy.mechanisms.mechanism import Mechanism
from fedsi.privacy.mechanisms.table import MECHANISMS, build_mechanism
from tests.fedsi.privacy.mechanisms.matrices import (
    draws,
    inverse,
    plan,
    searched_sensitivity,
    streamed,
)

ROUNDS = 24


def mechanism_of(name: str) -> Mechanism:
    if name == "gaussian":
        return build_mechanism(
            Plan(
                mechanism=name,
                sampling="poisson",
                population=100,
                cohort_size=10,
                rounds=ROUNDS,
                noise_multiplier=1.0,
                delta=1e-6,
            )
        )
    return build_mechanism(plan(name, ROUNDS, min_separation=8, restart_every=10))


@pytest.fixture(params=[*MECHANISMS])
def mechanism(request: pytest.FixtureRequest) -> Mechanism:
    return mechanism_of(request.param)


def test_float32_is_near_float64(mechanism: Mechanism) -> None:
    single = streamed(mechanism, ROUNDS, draws(0, 50, np.float32), 50)
    double = streamed(
        mechanism, ROUNDS, lambda t: lambda k: draws(0, 50, np.float32)(t)(k).astype(float), 50
    )
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, atol=3e-6)


def test_resumed_noise_has_the_same_bits(mechanism: Mechanism) -> None:
    fresh, size = draws(3, 20, np.float32), 20
    expected = streamed(mechanism, ROUNDS, fresh, size)
    for stop in range(1, ROUNDS):
        state = mechanism.initial_state(size)
        for t in range(1, stop + 1):
            mechanism.noise(state, t, fresh(t))
        saved = {name: array.tobytes() for name, array in state.items()}
        again = mechanism.initial_state(size)
        for name, raw in saved.items():
            again[name] = np.frombuffer(raw, np.float32).reshape(again[name].shape).copy()
        following = mechanism.noise(again, stop + 1, fresh(stop + 1))
        assert following.tobytes() == expected[stop].tobytes()


def test_fresh_vectors_stay_as_they_were(mechanism: Mechanism) -> None:
    given: dict[int, Any] = {}
    before: dict[int, Any] = {}

    def fresh(k: int) -> Any:
        given[k] = draws(0, 5, np.float32)(len(given) + 1)(k)
        before[k] = given[k].copy()
        return given[k]

    state = mechanism.initial_state(5)
    for t in range(1, ROUNDS + 1):
        given.clear()
        mechanism.noise(state, t, fresh)
        assert all(np.array_equal(given[k], before[k]) for k in given)


def test_the_scale_is_right_and_thirds_off_are_noticed(mechanism: Mechanism) -> None:
    """By a test of variances that fails by chance once in 10^8 rounds."""
    size = 2000
    noise = streamed(mechanism, ROUNDS, draws(5, size, np.float32), size)
    norms = mechanism.row_norms(ROUNDS)

    def fits(factor: float) -> bool:
        squares = np.sum((noise / (factor * norms[:, None])) ** 2, axis=1)
        low, high = chi2.ppf([0.5e-8, 1 - 0.5e-8], size)
        return bool(np.all((squares > low) & (squares < high)))

    assert fits(1.0)
    assert not fits(2 / 3)
    assert not fits(3 / 2)


@pytest.mark.parametrize("name", ["gaussian", "banded", "blt"])
def test_row_norms(name: str) -> None:
    mechanism = mechanism_of(name)
    for rounds in (1, 5, ROUNDS):
        expected = np.linalg.norm(inverse(mechanism, ROUNDS), axis=1)[:rounds]
        np.testing.assert_allclose(mechanism.row_norms(rounds), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["banded", "blt"])
@pytest.mark.parametrize("limit", [{}, {"participations": 2}, {"population": 7, "bands": 3}])
def test_sensitivity_of_the_first_rounds(name: str, limit: dict[str, Any]) -> None:
    """That of the first rows of C, found by going through all ways of taking part."""
    limit = limit if name == "banded" else {k: v for k, v in limit.items() if k != "bands"}
    priced = replace(plan(name, 14, min_separation=4), **limit)
    mechanism = build_mechanism(priced)
    matrix = np.abs(np.linalg.inv(inverse(mechanism, 14)))
    for rounds in range(1, 15):
        most = priced.participations_within(rounds)
        searched = searched_sensitivity(matrix[:rounds, :rounds], most, 4)
        assert mechanism.sensitivity_after(rounds) == pytest.approx(searched, rel=1e-6)
    assert mechanism.sensitivity_after(14) == mechanism.sensitivity


def test_independent_noise_is_the_first_vector() -> None:
    mechanism, fresh = mechanism_of("gaussian"), draws(0, 3)
    assert mechanism.sensitivity == 1.0
    assert mechanism.initial_state(3) == {}
    assert np.array_equal(mechanism.noise({}, 1, fresh(1)), fresh(1)(0))
