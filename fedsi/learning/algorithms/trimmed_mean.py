"""Coordinate-wise trimmed mean: the smallest and the largest values are left out of the mean.

Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
Statistical Rates" (arXiv 1803.01498), algorithm 1, option II. Of the n values of each parameter the
floor(beta n) smallest and the floor(beta n) largest are left out, with beta = ``algorithm.trim``,
and the others are averaged. A share of up to beta of the clients cannot move it beyond the values
of the others. n counts the clients that were aggregated, so a lost client shrinks both.

The server needs every client's update, as for the median.
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.learning.algorithms.algorithm import Algorithm, Updates, Vector
from fedsi.learning.algorithms.fed_avg import combine, finish, pull
from fedsi.learning.algorithms.median import check
from fedsi.learning.algorithms.ranks import of_each_parameter

_ROUNDING = 1e-9
"""So that 0.29 of 100 clients are 29, although the product is slightly less in floats."""


def aggregate(settings: AlgorithmSettings, updates: Updates) -> Vector:
    """Return the trimmed mean of each parameter."""
    left_out = math.floor(settings.trim * len(updates) + _ROUNDING)

    def mean(ascending: Updates) -> NDArray[np.float64]:
        kept = ascending[left_out : len(ascending) - left_out].astype(np.float64)
        total = np.zeros(kept.shape[1])
        for values in kept:  # in the order of the values, so no bit depends on that of the clients
            total += values
        return total / len(kept)

    return of_each_parameter(updates, mean)


ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    aggregate=aggregate,
    keys=frozenset({"memory_limit", "trim"}),
    check=check,
)
