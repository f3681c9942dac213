"""Moments shared by Adam, Adagrad and Yogi, and directions scaled by the second moment.

Reddi et al., "Adaptive Federated Optimization" (arXiv 2003.00295), algorithm 2. There is no bias
correction; the second moment starts at tau^2.
"""

from typing import TYPE_CHECKING

import numpy as np

from fedsi.learning.server_optimizers.optimizer import State, Vector

if TYPE_CHECKING:
    from fedsi.experiment.server import ServerSettings


def initial_second(settings: "ServerSettings", size: int) -> State:
    """Return v, tau^2 everywhere."""
    return {"second": np.full(size, settings.adaptivity**2, np.float32)}


def initial_moments(settings: "ServerSettings", size: int) -> State:
    """Return m, zeros, and v."""
    return {"first": np.zeros(size, np.float32), **initial_second(settings, size)}


def first_moment(settings: "ServerSettings", state: State, update: Vector) -> Vector:
    """Update ``m <- b1 m + (1 - b1) D`` in place and return m."""
    decay = np.float32(settings.momentum)
    first: Vector = state["first"]
    first *= decay
    first += (1 - decay) * update
    return first


def scaled(settings: "ServerSettings", state: State, direction: Vector) -> Vector:
    """Return ``direction / (sqrt(v) + tau)``."""
    root: Vector = np.sqrt(state["second"])
    root += np.float32(settings.adaptivity)
    return direction / root
