"""Contract of all server optimizers: their state, their results, and the keys that they read."""

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.experiment import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, take_step
from fedsi.learning.server_optimizers.table import KEYS, SERVER_OPTIMIZERS, optimizer_of

every = pytest.mark.parametrize("name", SERVER_OPTIMIZERS)
OTHERS = {"momentum": 0.3, "second_moment_decay": 0.4, "adaptivity": 0.5}
"""Values of ``KEYS`` that are not the defaults."""
GIVEN = RoundUpdate(np.ones(7, np.float32), np.linspace(-1, 1, 7, dtype=np.float32), 3)


def after_two(settings: ServerSettings) -> bytes:
    optimizer = optimizer_of(settings)
    state, parameters = optimizer.initial_state(settings, 7), GIVEN.parameters
    for number in (1, 2):
        given = RoundUpdate(parameters, GIVEN.update * np.float32(number), number)
        parameters, state = take_step(optimizer, settings, state, given)
    return parameters.tobytes()


@every
def test_the_state_keeps_its_form_and_is_left_as_it_was(name: str) -> None:
    settings = ServerSettings(optimizer=name)
    optimizer = optimizer_of(settings)
    state = optimizer.initial_state(settings, 7)
    before = {key: array.copy() for key, array in state.items()}
    parameters, after = take_step(optimizer, settings, state, GIVEN)
    assert parameters.dtype == np.dtype(np.float32)
    assert parameters.shape == (7,)
    assert GIVEN.parameters.tolist() == [1] * 7
    for key, array in state.items():
        assert array.tolist() == before[key].tolist()
        assert after[key].dtype == array.dtype == np.dtype(np.float32)
        assert after[key].shape == array.shape == (7,)
    assert after.keys() == state.keys()


@every
def test_keys_have_an_effect_or_are_refused(name: str) -> None:
    assert set(OTHERS) == set(KEYS)
    usual = after_two(ServerSettings(optimizer=name))
    for key, value in OTHERS.items():
        if key in SERVER_OPTIMIZERS[name].keys:
            assert after_two(ServerSettings(optimizer=name, **{key: value})) != usual
        else:
            with pytest.raises(UserError, match=rf"^server\.{key}=.* has no effect with .*={name}"):
                Experiment(server={"optimizer": name, key: value})


@every
def test_another_optimizer_leaves_behind_what_it_does_not_use(name: str) -> None:
    changed = Experiment(server={**OTHERS, "optimizer": "yogi"}).updated({"server.optimizer": name})
    for key in KEYS:
        used = key in SERVER_OPTIMIZERS[name].keys
        default = ServerSettings.model_fields[key].default
        assert getattr(changed.server, key) == (OTHERS[key] if used else default)
