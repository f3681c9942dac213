"""Coordinate-wise median: the server takes the median of the clients' updates, not their mean.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates" (arXiv 1803.01498), algorithm 1, option I. Each parameter of the round's update
is the median of its values over the clients that were aggregated, each with one vote; of an even
number it is the mean of the two in the middle. Fewer than half of the clients cannot move it beyond
the values of the others.

The server needs every client's update, not only their sum: memory for all of them, and no secure
aggregation.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.learning.algorithms.algorithm import Algorithm, Updates, Vector
from fedsi.learning.algorithms.fed_avg import combine, finish, pull
from fedsi.learning.algorithms.ranks import of_each_parameter

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def aggregate(_settings: AlgorithmSettings, updates: Updates) -> Vector:
    """Return the median of each parameter."""
    return of_each_parameter(updates, _middle)


def _middle(ascending: Updates) -> NDArray[np.float64]:
    clients = len(ascending)
    low, high = (ascending[k].astype(np.float64) for k in ((clients - 1) // 2, clients // 2))
    middle: NDArray[np.float64] = (low + high) / 2
    return middle


def check(experiment: "Experiment") -> None:
    """Refuse weights, which a median of the clients' votes has not."""
    if experiment.server.averaging != "uniform":
        raise ValueError(
            f"algorithm.name={experiment.algorithm.name} needs server.averaging=uniform: each "
            "client has one vote"
        )


ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    aggregate=aggregate,
    keys=frozenset({"memory_limit"}),
    check=check,
)
