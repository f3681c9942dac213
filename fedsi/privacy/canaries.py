"""Canaries: clients whose update is a direction of their own, put into a run to audit its privacy.

A canary's direction is drawn at random, so it is all but orthogonal to other canaries and to what
real clients learn: the sum of a run's releases along it shows whether the canary took part, as far
as the noise allows. Half of the canaries, chosen by fair coins, take part; the others are what the
first half is compared with (Andrew et al., arXiv 2302.03098; Steinke et al., arXiv 2305.08846).
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedsi.seeds import Purpose, generator

RAW_NORM = 10.0
"""Norm of a canary's update before clipping, in clip norms. Clipping brings it to 1; a run that
forgot to clip shows by it."""

FIRST = 1 << 40
"""Index of the first canary among clients, beyond any population's."""


def direction(seed: int, canary: int, size: int) -> NDArray[np.float32]:
    """Return a canary's direction, uniform on the unit sphere: ``[size]``."""
    rng = generator(seed, Purpose.CANARY, 0, canary)
    vector = rng.standard_normal(size, dtype=np.float32)
    # Not by BLAS, whose threads would wait for one another on vectors this short.
    vector /= np.float32(math.sqrt(np.square(vector, dtype=np.float64).sum()))
    return vector


def included(seed: int, canaries: int) -> NDArray[np.bool_]:
    """Return which canaries take part, a fair coin each: ``[canaries]``."""
    coins: NDArray[np.bool_] = generator(seed, Purpose.CANARY, 1).random(canaries) < 0.5
    return coins


def scores(seed: int, canaries: int, released: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the length of a release along each canary's direction.

    Args:
        seed: The experiment's.
        canaries: Their number.
        released: A noisy sum over its clip norm: ``[parameters]``.

    Returns:
        ``[canaries]``, about 1 for those that took part, plus noise.
    """
    size = len(released)
    directions = (direction(seed, k, size) for k in range(canaries))
    return np.array([(one * released).sum(dtype=np.float64) for one in directions])
