"""Custom server optimizers: faulty ones, and a valid one."""

import random
from typing import Any

import numpy as np
import torch

from fedsi.experiment import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, State, Vector

_calls: list[int] = []


def nothing(_settings: ServerSettings, _size: int) -> State:
    return {}


def first(_settings: ServerSettings, size: int) -> State:
    return {"first": np.zeros(size, np.float32)}


def _plain(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    return given.update, state


def _raises(_settings: ServerSettings, _state: State, _given: RoundUpdate) -> tuple[Vector, State]:
    raise KeyError("nonsense")


def _late(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    if given.round_number > 1:
        raise KeyError("nonsense")
    return given.update, state


def _short(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    return given.update[1:], state


def _wide(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Any, State]:
    return given.update.astype(np.float64), state


def _alone(_settings: ServerSettings, _state: State, given: RoundUpdate) -> Any:
    return given.update


def _writes(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    given.parameters[0] = 0.0
    return given.update, state


def _forgets(_settings: ServerSettings, _state: State, given: RoundUpdate) -> tuple[Vector, State]:
    return given.update, {}


def _widens(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    return given.update, {"first": state["first"].astype(np.float64)}


def _numpy(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    np.random.standard_normal()  # noqa: NPY002 - what must not be done
    return given.update, state


def _python(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    random.random()
    return given.update, state


def _torch(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    torch.rand(1)
    return given.update, state


def _unseeded(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    return given.update * np.random.default_rng().random(dtype=np.float32), state


def _remembers(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    _calls.append(1)
    return given.update * np.float32(len(_calls)), state


plain = ServerOptimizer(first, _plain)
with_momentum = ServerOptimizer(nothing, _plain, keys=frozenset({"momentum"}))
raises = ServerOptimizer(nothing, _raises)
late = ServerOptimizer(nothing, _late)
short = ServerOptimizer(nothing, _short)
wide = ServerOptimizer(nothing, _wide)
alone = ServerOptimizer(nothing, _alone)
writes = ServerOptimizer(nothing, _writes)
forgets = ServerOptimizer(first, _forgets)
widens = ServerOptimizer(first, _widens)
draws_numpy = ServerOptimizer(nothing, _numpy)
draws_python = ServerOptimizer(nothing, _python)
draws_torch = ServerOptimizer(nothing, _torch)
unseeded = ServerOptimizer(nothing, _unseeded)
remembers = ServerOptimizer(nothing, _remembers)
no_dict = ServerOptimizer(lambda _settings, _size: [], _plain)  # type: ignore[arg-type, return-value]
a_list = ServerOptimizer(lambda _settings, _size: {"first": [1.0]}, _plain)  # type: ignore[dict-item]
bad_name = ServerOptimizer(lambda _settings, _size: {"a b": np.zeros(1)}, _plain)
not_one = {"step": _plain}
