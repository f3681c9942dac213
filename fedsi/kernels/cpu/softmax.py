"""Compiled passes over a slice of the output layer's logits.

Arrays are float32 (float64 in the tests).
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from fedsi.compiler import compiled
from fedsi.kernels.cpu.bits import from_ordered, power_of_two, to_ordered

Array = NDArray[Any]


@compiled
def exponentiate(
    logits: Array,
    bias: Array,
    targets: Array,
    first: int,
    largest: Array,
    sums: Array,
    at_targets: Array,
) -> None:
    """Add the bias to logits and replace them by their exponentials relative to the largest.

    Args:
        logits: Logits of the slice's words, ``[positions, words]``; overwritten.
        bias: ``[words]``.
        targets: Token ids, ``[positions]``.
        first: Token id of the slice's first word.
        largest: Output: the largest logit of each position, ``[positions]``.
        sums: Output: the sum of each position's exponentials, ``[positions]``.
        at_targets: Output where the target is in the slice: its logit, ``[positions]``.
    """
    for i in range(len(logits)):
        row = logits[i]
        ordered = to_ordered(row[0] + bias[0])
        for j in range(len(row)):
            row[j] += bias[j]
            ordered = max(ordered, to_ordered(row[j]))
        most = from_ordered(ordered)
        if 0 <= targets[i] - first < len(row):
            at_targets[i] = row[targets[i] - first]
        total = row.dtype.type(0)
        for j in range(len(row)):
            row[j] = exponential(row[j] - most)
            total += row[j]
        largest[i] = most
        sums[i] = total


@compiled
def subtract_targets(exponentials: Array, targets: Array, first: int, factors: Array) -> None:
    """Turn exponentials into the gradient of the loss, up to the factor of each position.

    Args:
        exponentials: Output of ``exponentiate``, ``[positions, words]``.
        targets: Token ids, ``[positions]``.
        first: Token id of the slice's first word.
        factors: Factors that turn exponentials into probabilities, ``[positions]``.
    """
    one = exponentials.dtype.type(1)
    for i in range(len(exponentials)):
        column = targets[i] - first
        if 0 <= column < exponentials.shape[1]:
            exponentials[i, column] -= one / factors[i]


def exponential(x: Any) -> Any:
    """Compute ``e^x``; in float32 only for x <= 0."""
    return math.exp(x)


@overload(exponential)
def _choose_exp(x: Any) -> Any:
    return _exp_32 if x == types.float32 else _exp_64


def _exp_64(x: Any) -> Any:
    return math.exp(x)


def _exp_32(x: Any) -> Any:
    """Compute ``e^x`` for x <= 0 without a call or a branch, within a few units in the last place.

    The result is ``2^n e^r`` with ``|r| <= log(2) / 2`` and the polynomial of Cephes' ``expf``.
    Below -87, where float32 has few digits left, it is ``e^-87``. NaN stays NaN.
    """
    one = np.float32
    x = max(x, one(-87.0))
    # This is an integer even if x is NaN.
    number = max(one(-88.0), x)
    n = np.floor(number * one(1.44269504088896341) + one(0.5))
    r = x - n * one(0.693359375) + n * one(2.12194440e-4)
    p = one(1.9875691500e-4) * r + one(1.3981999507e-3)
    p = p * r + one(8.3334519073e-3)
    p = p * r + one(4.1665795894e-2)
    p = p * r + one(1.6666665459e-1)
    p = p * r + one(5.0000001201e-1)
    return (p * r * r + r + one(1)) * power_of_two(np.int32(n))
