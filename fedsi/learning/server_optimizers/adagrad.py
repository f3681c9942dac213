"""Adagrad: ``v <- v + D^2``, and the direction is ``D / (sqrt(v) + tau)`` (arXiv 2003.00295)."""

from fedsi.experiment.server import ServerSettings
from fedsi.learning.server_optimizers.moments import initial_second, scaled
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, State, Vector


def step(settings: ServerSettings, state: State, given: RoundUpdate) -> tuple[Vector, State]:
    """Return the direction, and the state with the next v."""
    state["second"] += given.update**2
    return scaled(settings, state, given.update), state


OPTIMIZER = ServerOptimizer(initial_second, step, keys=frozenset({"adaptivity"}))
