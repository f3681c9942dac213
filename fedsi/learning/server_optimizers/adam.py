"""Adam: ``v <- b2 v + (1 - b2) D^2``, and the direction is ``m / (sqrt(v) + tau)``.

As in Reddi et al. (arXiv 2003.00295), without bias correction; ``m <- b1 m + (1 - b1) D``.
"""

from typing import TYPE_CHECKING

import numpy as np

from fedsi.learning.server_optimizers.moments import first_moment, initial_moments, scaled
from fedsi.learning.server_optimizers.optimizer import RoundUpdate, ServerOptimizer, State, Vector
from fedsi.learning.server_optimizers.table import KEYS

if TYPE_CHECKING:
    from fedsi.experiment.server import ServerSettings


def step(settings: "ServerSettings", state: State, given: RoundUpdate) -> tuple[Vector, State]:
    """Return the direction, and the state with the next moments."""
    decay = np.float32(settings.second_moment_decay)
    state["second"] *= decay
    state["second"] += (1 - decay) * given.update**2
    return scaled(settings, state, first_moment(settings, state, given.update)), state


OPTIMIZER = ServerOptimizer(initial_moments, step, KEYS)
