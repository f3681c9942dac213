"""Learning rate schedules against a table, and properties of all of them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.experiment import ServerSettings
from fedsi.schedule import Schedule

FALLING = ["cosine", "cooldown"]


def of(schedule: Schedule, rounds: int) -> list[float]:
    return [round(value, 6) for value in schedule.factors(rounds)]


def test_small_cases_by_hand() -> None:
    assert of(Schedule(), 3) == [1, 1, 1]
    assert of(Schedule("warm_up", 4), 6) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert of(Schedule("cooldown"), 8) == [1, 1, 1, 1, 1, 1, 0.5, 0]
    assert of(Schedule("cooldown", final_fraction=0.1), 12) == [1] * 9 + [0.7, 0.4, 0.1]
    assert of(Schedule("cooldown", 2, 0.5), 4) == [0.5, 1, 1, 0.5]
    assert of(Schedule("cosine"), 5) == [1, 0.853553, 0.5, 0.146447, 0]
    assert of(Schedule("cosine", 2, 0.2), 5) == [0.5, 1, 1, 0.6, 0.2]
    assert of(Schedule("cosine", final_fraction=0.2), 1) == [1]
    assert of(Schedule("cooldown", final_fraction=0.2), 1) == [0.2]


@given(
    st.sampled_from(FALLING),
    st.integers(1, 200),
    st.integers(0, 200),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_it_rises_to_one_and_falls_to_its_end(
    kind: str, rounds: int, warm_up: int, final: float
) -> None:
    schedule = Schedule(kind, warm_up, final)
    if schedule.least_rounds(rounds) > rounds:
        return
    factors = schedule.factors(rounds)
    assert np.all((factors > 0) | (final == 0))
    assert factors.max() <= 1
    np.testing.assert_allclose(factors[:warm_up], np.arange(1, warm_up + 1) / max(1, warm_up))
    assert np.all(np.diff(factors[warm_up:]) <= 1e-15)
    if rounds - warm_up > 1:
        assert factors[-1] == pytest.approx(final, abs=1e-15)
    if kind == "cooldown":
        assert np.all(factors[warm_up : rounds - math.ceil(rounds / 4)] == 1)


def test_the_server_multiplies_its_learning_rate() -> None:
    server = ServerSettings(
        rounds=8, learning_rate=0.5, schedule="cooldown", warm_up_rounds=2, final_fraction=0.2
    )
    rates = [server.learning_rate_of(number) for number in range(1, 9)]
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.3, 0.1])
    assert {ServerSettings(learning_rate=0.3).learning_rate_of(n) for n in (1, 7, 50)} == {0.3}
