"""Passes over the columns of a matrix of updates, in parts that fit the processor's cache."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsi.learning.algorithms.algorithm import Updates

_NUMBERS = 1 << 18
"""Numbers that are ranked at a time."""


def of_each_parameter(
    updates: Updates, estimate: Callable[[Updates], NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Return an estimate for each parameter from the sorted values of all clients.

    Args:
        updates: The clients' updates, ``[clients, parameters]``; at least one client.
        estimate: Returns ``[part]`` from values that ascend along the first axis,
            ``[clients, part]``.
    """
    clients, parameters = updates.shape
    step = max(1, _NUMBERS // clients)
    result = np.empty(parameters, np.float32)
    for first in range(0, parameters, step):
        part = updates[:, first : first + step]
        # Copied so that the values of a parameter are neighbours in memory, which sorts faster.
        result[first : first + step] = estimate(np.sort(part.T.copy(), axis=1).T)
    return result
