"""The interface of a server optimizer: two functions.

The learning rate eta, its schedule and the weight decay lambda are the program's:
``x <- (1 - eta lambda) x + eta direction``, so weight decay is decoupled from the moments
(Loshchilov and Hutter, arXiv 1711.05101). An entry ends its module:
``OPTIMIZER = ServerOptimizer(...)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment.server import ServerSettings

Vector = NDArray[np.float32]
"""``[parameters]``."""
State = dict[str, NDArray[Any]]
"""What an optimizer keeps between rounds, in checkpoints too: arrays by name."""


@dataclass(frozen=True)
class RoundUpdate:
    """What a round gives the optimizer. Nothing of it may be changed."""

    parameters: Vector
    """x, the global parameters."""
    update: Vector
    """D, the average of the clients' updates; with noise in a private run."""
    round_number: int
    """From 1."""


@dataclass(frozen=True)
class ServerOptimizer:
    """A server optimizer. Its functions remember nothing but the state that they are given."""

    initial_state: Callable[[ServerSettings, int], State]
    """Returns the state before the first round for so many parameters."""
    step: Callable[[ServerSettings, State, RoundUpdate], tuple[Vector, State]]
    """Returns the direction, ``[parameters]``, and the next state, which has the same names, shapes
    and types. The state that it is given is a copy, which it may change."""
    keys: frozenset[str] = frozenset()
    """The keys among ``momentum``, ``second_moment_decay`` and ``adaptivity`` that it reads."""


def take_step(
    optimizer: ServerOptimizer, settings: ServerSettings, state: State, given: RoundUpdate
) -> tuple[Vector, State]:
    """Return the next global parameters and the next state.

    Args:
        optimizer: As ``optimizer_of`` returned it.
        settings: Learning rate, schedule, weight decay, and the optimizer's constants.
        state: From ``initial_state`` or an earlier step; it is left as it is.
        given: The round's update and what it is applied to.
    """
    copies = {name: array.copy() for name, array in state.items()}
    direction, after = optimizer.step(settings, copies, given)
    rate = settings.learning_rate_of(given.round_number)
    parameters = given.parameters.copy()
    if settings.weight_decay:
        parameters *= np.float32(1 - rate * settings.weight_decay)
    parameters += np.float32(rate) * direction
    return parameters, after
