"""Server optimizers: the step of the global parameters x, given the average update D.

Reddi et al., "Adaptive Federated Optimization" (arXiv 2003.00295), algorithm 2, and SGD with and
without momentum. There is no bias correction; the second moment starts at tau^2. Weight decay is
decoupled from the moments (Loshchilov and Hutter, arXiv 1711.05101).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import ServerSettings

Vector = NDArray[np.float32]
Moments = dict[str, Vector]
"""The first and second moments that the optimizer uses, ``[parameters]`` each."""

_Direction = Callable[[ServerSettings, Moments, Vector], Vector]


def initial_state(settings: ServerSettings, size: int) -> Moments:
    """Return the optimizer's state before the first round."""
    moments = {
        "first": np.zeros(size, np.float32),
        "second": np.full(size, settings.adaptivity**2, np.float32),
    }
    return {name: moments[name] for name in _STATE[settings.optimizer]}


def step(
    settings: ServerSettings, state: Moments, parameters: Vector, update: Vector, round_number: int
) -> None:
    """Update ``parameters`` and ``state`` in place: ``x <- (1 - eta lambda) x + eta direction``.

    Args:
        settings: The optimizer and its constants.
        state: The result of ``initial_state``, or the state after the step before.
        parameters: x, ``[parameters]``.
        update: D, the average of the clients' updates, ``[parameters]``.
        round_number: The round, from 1, which eta may depend on.
    """
    direction = _DIRECTIONS[settings.optimizer](settings, state, update)
    rate = settings.learning_rate_of(round_number)
    if settings.weight_decay:
        parameters *= np.float32(1 - rate * settings.weight_decay)
    parameters += np.float32(rate) * direction


def _sgd(_settings: ServerSettings, _state: Moments, update: Vector) -> Vector:
    return update


def _sgdm(settings: ServerSettings, state: Moments, update: Vector) -> Vector:
    state["first"] *= np.float32(settings.momentum)
    state["first"] += update
    return state["first"]


def _adagrad(settings: ServerSettings, state: Moments, update: Vector) -> Vector:
    state["second"] += update**2
    return _scaled(settings, state, update)


def _adam(settings: ServerSettings, state: Moments, update: Vector) -> Vector:
    decay = np.float32(settings.second_moment_decay)
    state["second"] *= decay
    state["second"] += (1 - decay) * update**2
    return _scaled(settings, state, _first_moment(settings, state, update))


def _yogi(settings: ServerSettings, state: Moments, update: Vector) -> Vector:
    decay = np.float32(settings.second_moment_decay)
    square = update**2
    state["second"] -= (1 - decay) * square * np.sign(state["second"] - square)
    return _scaled(settings, state, _first_moment(settings, state, update))


def _first_moment(settings: ServerSettings, state: Moments, update: Vector) -> Vector:
    decay = np.float32(settings.momentum)
    state["first"] *= decay
    state["first"] += (1 - decay) * update
    return state["first"]


def _scaled(settings: ServerSettings, state: Moments, direction: Vector) -> Vector:
    root: Vector = np.sqrt(state["second"])
    root += np.float32(settings.adaptivity)
    return direction / root


_DIRECTIONS: dict[str, _Direction] = {
    "sgd": _sgd,
    "sgdm": _sgdm,
    "adam": _adam,
    "adagrad": _adagrad,
    "yogi": _yogi,
}

_STATE = {
    "sgd": (),
    "sgdm": ("first",),
    "adam": ("first", "second"),
    "adagrad": ("second",),
    "yogi": ("first", "second"),
}
