"""Canaries: clients that send a random direction as their update, to audit a run's privacy.

Random directions are almost orthogonal to each other and to what real clients learn. So the sum of
a run's releases along a canary's direction shows whether it took part, as far as the noise allows.
Half of the canaries, chosen by fair coins, take part; the others are the comparison (Andrew et al.,
arXiv 2302.03098; Steinke et al., arXiv 2305.08846).
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedsi.seeds import Purpose, generator

RAW_NORM = 10.0
"""Norm of a canary's update before clipping, in clip norms. Clipping reduces it to 1, so a run that
does not clip is detected."""

FIRST = 1 << 40
"""Index of the first canary among the clients, above any population size."""


def direction(seed: int, canary: int, size: int) -> NDArray[np.float32]:
    """Return a canary's direction, uniform on the unit sphere: ``[size]``."""
    rng = generator(seed, Purpose.CANARY, 0, canary)
    vector = rng.standard_normal(size, dtype=np.float32)
    # Without BLAS, whose threads would wait for one another on vectors this short.
    vector /= np.float32(math.sqrt(np.square(vector, dtype=np.float64).sum()))
    return vector


def included(seed: int, canaries: int) -> NDArray[np.bool_]:
    """Return which canaries take part, by a fair coin each: ``[canaries]``."""
    coins: NDArray[np.bool_] = generator(seed, Purpose.CANARY, 1).random(canaries) < 0.5
    return coins


def scores(seed: int, canaries: int, released: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the component of a release along each canary's direction.

    Args:
        seed: The experiment's seed.
        canaries: Number of canaries.
        released: A noisy sum divided by its clip norm, ``[parameters]``.

    Returns:
        ``[canaries]``; about 1 for those that took part, plus noise.
    """
    size = len(released)
    directions = (direction(seed, k, size) for k in range(canaries))
    return np.array([(one * released).sum(dtype=np.float64) for one in directions])
