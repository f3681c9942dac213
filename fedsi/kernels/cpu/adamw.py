"""AdamW's step, compiled: a single pass over parameters, gradient and moments."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.compiler import compiled

Array = NDArray[Any]


@compiled
def adamw_step(
    parameters: Array,
    gradient: Array,
    first: Array,
    second: Array,
    scalars: Array,
) -> None:
    """Update parameters and moments in place.

    ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g^2``, and then ``theta <- keep theta - rate
    m / (root sqrt(v) + tau)``.

    Args:
        parameters: theta, ``[parameters]``; all arrays have the same type.
        gradient: g, ``[parameters]``.
        first: m, ``[parameters]``.
        second: v, ``[parameters]``.
        scalars: b1, 1 - b1, b2, 1 - b2; keep (from weight decay); rate (the learning rate divided
            by the bias correction of m); root (the inverse root of the bias correction of v); tau.
    """
    b1, new1, b2, new2 = scalars[0], scalars[1], scalars[2], scalars[3]
    keep, rate, root, adaptivity = scalars[4], scalars[5], scalars[6], scalars[7]
    for i in range(len(parameters)):
        g = gradient[i]
        m = b1 * first[i] + new1 * g
        v = b2 * second[i] + new2 * g * g
        first[i] = m
        second[i] = v
        parameters[i] = keep * parameters[i] - rate * m / (root * np.sqrt(v) + adaptivity)
