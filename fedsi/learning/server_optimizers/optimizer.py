"""The interface of a server optimizer: two functions.

The program itself applies the learning rate eta, its schedule and the weight decay lambda: ``x <-
(1 - eta lambda) x + eta direction``. So weight decay is decoupled from the moments (Loshchilov and
Hutter, arXiv 1711.05101). A module ends with its entry: ``OPTIMIZER = ServerOptimizer(...)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedsi.experiment.server import ServerSettings


Vector = NDArray[np.float32]
"""``[parameters]``."""
State = dict[str, NDArray[Any]]
"""Arrays by name that an optimizer keeps between rounds and in checkpoints."""


@dataclass(frozen=True)
class RoundUpdate:
    """The inputs of an optimizer in one round. They must not be modified."""

    parameters: Vector
    """x, the global parameters."""
    update: Vector
    """D, the average of the clients' updates; with noise in a private run."""
    round_number: int
    """The round, from 1."""


@dataclass(frozen=True)
class ServerOptimizer:
    """A server optimizer. Its functions keep no state except the one passed to them."""

    initial_state: "Callable[[ServerSettings, int], State]"
    """Returns the state before the first round for a number of parameters."""
    step: "Callable[[ServerSettings, State, RoundUpdate], tuple[Vector, State]]"
    """Returns the direction, ``[parameters]``, and the next state, with the same names, shapes and
    types. The state passed in is a copy that may be modified."""
    keys: frozenset[str] = frozenset()
    """The keys among ``momentum``, ``second_moment_decay`` and ``adaptivity`` that it reads."""


def take_step(
    optimizer: ServerOptimizer, settings: "ServerSettings", state: State, given: RoundUpdate
) -> tuple[Vector, State]:
    """Return the next global parameters and the next state.

    Args:
        optimizer: The result of ``optimizer_of``.
        settings: Learning rate, schedule, weight decay, and the optimizer's constants.
        state: The result of ``initial_state`` or an earlier step; it is not modified.
        given: The round's update, and the parameters that it is applied to.
    """
    copies = {name: array.copy() for name, array in state.items()}
    direction, after = optimizer.step(settings, copies, given)
    rate = settings.learning_rate_of(given.round_number)
    parameters = given.parameters.copy()
    if settings.weight_decay:
        parameters *= np.float32(1 - rate * settings.weight_decay)
    parameters += np.float32(rate) * direction
    return parameters, after
