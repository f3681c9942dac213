"""SGD with momentum: ``m <- beta m + D``, and the direction is m."""

import numpy as np

from fedsi.experiment.server import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, State, Vector


def initial_state(_settings: ServerSettings, size: int) -> State:
    """Return m, zeros."""
    return {"first": np.zeros(size, np.float32)}


def step(settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    """Return m, and the state with it."""
    state["first"] *= np.float32(settings.momentum)
    state["first"] += given.update
    return state["first"], state


OPTIMIZER = ServerOptimizer(initial_state, step, keys=frozenset({"momentum"}))
