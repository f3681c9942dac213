"""SGD: the direction is the average update D.

With a learning rate of 1 the next model is the mean of the clients' models.
"""

from fedsi.experiment.server import ServerSettings
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, State, Vector


def initial_state(_settings: ServerSettings, _size: int) -> State:
    """Return no arrays."""
    return {}


def step(_settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    """Return D."""
    return given.update, state


OPTIMIZER = ServerOptimizer(initial_state, step)
