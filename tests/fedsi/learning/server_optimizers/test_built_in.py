"""Server optimizers against the paper's formulas, one number at a time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.experiment import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, State, Vector, take_step
from fedsi.learning.server_optimizers.table import SERVER_OPTIMIZERS, optimizer_of

NAMES = list(SERVER_OPTIMIZERS)
updates = st.lists(
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), min_size=1, max_size=6
)


def stepped(
    settings: ServerSettings, state: State, parameters: Vector, update: Vector, number: int
) -> tuple[Vector, State]:
    given = RoundUpdate(parameters, update, number)
    return take_step(optimizer_of(settings), settings, state, given)


def slow(settings: ServerSettings, deltas: list[float]) -> float:
    tau = settings.adaptivity
    b1, b2 = settings.momentum, settings.second_moment_decay
    x = m = 0.0
    v = tau**2
    for t, d in enumerate(deltas, 1):
        eta = settings.learning_rate * (t / 4 if settings.schedule == "warm_up" and t < 4 else 1)
        x *= 1 - eta * settings.weight_decay
        match settings.optimizer:
            case "sgd":
                x += eta * d
            case "sgdm":
                m = b1 * m + d
                x += eta * m
            case "adagrad":
                v += d**2
                x += eta * d / (math.sqrt(v) + tau)
            case "adam":
                m, v = b1 * m + (1 - b1) * d, b2 * v + (1 - b2) * d**2
                x += eta * m / (math.sqrt(v) + tau)
            case "yogi":
                m = b1 * m + (1 - b1) * d
                v -= (1 - b2) * d**2 * ((v > d**2) - (v < d**2))
                x += eta * m / (math.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("name", NAMES)
@given(deltas=updates, weight_decay=st.sampled_from([0.0, 0.3]), rises=st.booleans())
def test_equals_the_formula(
    name: str, deltas: list[list[float]], weight_decay: float, rises: bool
) -> None:
    settings = ServerSettings(
        optimizer=name,
        learning_rate=0.1,
        adaptivity=1e-2 if "adaptivity" in SERVER_OPTIMIZERS[name].keys else 1e-5,
        weight_decay=weight_decay,
        schedule="warm_up" if rises else "constant",
        warm_up_rounds=4 if rises else None,
    )
    parameters = np.zeros(3, np.float32)
    state = optimizer_of(settings).initial_state(settings, 3)
    for number, delta in enumerate(deltas, 1):
        parameters, state = stepped(
            settings, state, parameters, np.array(delta, np.float32), number
        )
    expected = [slow(settings, list(column)) for column in zip(*deltas, strict=True)]
    np.testing.assert_allclose(parameters, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_update_moves_nothing_at_first(name: str) -> None:
    settings = ServerSettings(optimizer=name)
    parameters = np.ones(4, np.float32)
    state = optimizer_of(settings).initial_state(settings, 4)
    after, _ = stepped(settings, state, parameters, np.zeros(4, np.float32), 1)
    assert after.tolist() == [1, 1, 1, 1]


def test_weight_decay_shrinks_the_parameters_and_no_moment() -> None:
    settings = ServerSettings(optimizer="adam", learning_rate=0.5, weight_decay=0.2)
    state = optimizer_of(settings).initial_state(settings, 2)
    parameters = np.ones(2, np.float32)
    after, state = stepped(settings, state, parameters, np.zeros(2, np.float32), 1)
    assert after.tolist() == pytest.approx([0.9, 0.9])
    assert parameters.tolist() == [1, 1]
    assert state["first"].tolist() == [0, 0]
