"""Hashes of arrays of integers."""

import numpy as np
from numpy.typing import NDArray


def splitmix64(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each key: the finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
