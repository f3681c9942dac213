"""Noise from the operating system's entropy: exact discrete Gaussians and normal numbers.

``discrete_gaussian`` is the exact sampler of Canonne, Kamath and Steinke (arXiv 2004.00030,
algorithms 1 to 3) for many entries at once. It only draws integers and compares uniform numbers
with rational ones. The first 53 bits of a uniform are compared with the rational in float64; if
they are closer than ``DOUBT``, exact fractions and more bits of the same uniform decide. So every
entry has exactly the distribution ``P(y) ~ exp(-y^2 / (2 sigma^2))`` and is independent of the
others, if the operating system's bits are uniform and independent.

``secure_normal``, used for correlated noise, is not exact: it evaluates the inverse of the normal
distribution in float64.

Not covered: the time taken depends on the values drawn, and the caller must convert updates to
integers and bound them in the same units.
"""

import os
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

DOUBT = 2.0**-45
"""Distance below which a uniform and a probability are compared exactly; errors of float64 are
below 2^-48."""

SMALLEST_SIGMA, LARGEST_SIGMA = 2.0**-20, 2.0**53
"""Range of sigma in which 64-bit integers overflow with probability below exp(-1000)."""

_Booleans = NDArray[np.bool_]
_Floats = NDArray[np.float64]
_Integers = NDArray[np.int64]
_Exactly = Callable[[int], Fraction]
"""The exact value of an entry, by its index."""


def discrete_gaussian(sigma: float, size: int) -> _Integers:
    """Return independent exact samples of the discrete Gaussian, ``[size]``.

    A discrete Laplace sample y of scale ``t = floor(sigma) + 1`` is accepted with probability
    ``exp(-(|y| - sigma^2 / t)^2 / (2 sigma^2))`` (algorithm 3).

    Args:
        sigma: ``SMALLEST_SIGMA`` to ``LARGEST_SIGMA``; the float is used as an exact rational.
        size: Number of samples.

    Raises:
        ValueError: Sigma is out of range.
    """
    if not SMALLEST_SIGMA <= sigma <= LARGEST_SIGMA:
        raise ValueError(f"sigma={sigma} of a discrete Gaussian is not in [2^-20, 2^53]")
    accepted = np.empty(0, np.int64)
    while len(accepted) < size:
        drawn = _discrete_laplace(int(sigma) + 1, 64 + 2 * (size - len(accepted)))
        accepted = np.concatenate([accepted, drawn[_is_kept(drawn, sigma)]])
    return accepted[:size]


def _is_kept(drawn: _Integers, sigma: float) -> _Booleans:
    double_square = 2 * Fraction(sigma) ** 2
    centre = double_square / (2 * (int(sigma) + 1))
    exponents = (np.abs(drawn) - float(centre)) ** 2 / float(double_square)
    return _bernoulli_exp(exponents, lambda i: (abs(int(drawn[i])) - centre) ** 2 / double_square)


def _discrete_laplace(scale: int, tries: int) -> _Integers:
    """Return at most ``tries`` samples with ``P(y) ~ exp(-|y| / scale)`` (algorithm 2)."""
    uniform = _uniform_integers(scale, tries)
    low = uniform[_bernoulli_exp(uniform / scale, lambda i: Fraction(int(uniform[i]), scale))]
    high = np.zeros(len(low), np.int64)
    going = np.arange(len(low))
    while going.size:
        going = going[_bernoulli_exp(np.ones(len(going)), lambda _: Fraction(1))]
        high[going] += 1
    size = low + scale * high
    negative = _words(len(size)) >> np.uint64(63) == 1
    signed = np.where(negative, -size, size)
    kept: _Integers = signed[~(negative & (size == 0))]
    return kept


def _bernoulli_exp(exponents: _Floats, exactly: _Exactly) -> _Booleans:
    """Return True with probability ``exp(-exponent)``, for each exponent of at least 0.

    A coin of probability ``exp(-x)`` is m coins of probability ``exp(-x / m)`` that all succeed,
    for an integer m >= x. The margin added here exceeds the float64 error of the exponents, so m is
    large enough.
    """
    parts = np.floor(exponents * (1 + 2.0**-40) + 2.0**-20).astype(np.int64) + 1
    passed = np.ones(len(parts), np.bool_)
    going = np.arange(len(parts))
    done = 0
    while going.size:
        shares = exponents[going] / parts[going]
        exact_shares = _divided(exactly, going, parts[going])
        passed[going] = _bernoulli_exp_below_one(shares, exact_shares)
        done += 1
        going = going[passed[going] & (parts[going] > done)]
    return passed


def _bernoulli_exp_below_one(exponents: _Floats, exactly: _Exactly) -> _Booleans:
    """Return True with probability ``exp(-exponent)``, for exponents in [0, 1] (algorithm 1).

    Toss coins of probability ``exponent / k`` for k = 1, 2, ...; the first k that fails is odd with
    this probability.
    """
    odd = np.zeros(len(exponents), np.bool_)
    going = np.arange(len(exponents))
    k = 1
    while going.size:
        exact_parts = _divided(exactly, going, np.full(len(going), k))
        heads = _bernoulli(exponents[going] / k, exact_parts)
        odd[going[~heads]] = k % 2 == 1
        going = going[heads]
        k += 1
    return odd


def _divided(exactly: _Exactly, chosen: _Integers, divisors: _Integers) -> _Exactly:
    """Return the exact values of the chosen entries, divided."""
    return lambda i: exactly(int(chosen[i])) / int(divisors[i])


def _bernoulli(probabilities: _Floats, exactly: _Exactly) -> _Booleans:
    """Return True with exact probabilities; ``probabilities`` approximates them."""
    bits = _words(len(probabilities)) >> np.uint64(11)
    above = probabilities - bits * 2.0**-53
    heads = above > 0
    for i in np.flatnonzero(np.abs(above) <= DOUBT).tolist():
        heads[i] = _is_below(int(bits[i]), 53, exactly(i))
    return heads


def _is_below(bits: int, count: int, probability: Fraction) -> bool:
    """Return whether a uniform number, given by its first bits, is below a probability."""
    while True:
        if Fraction(bits + 1, 1 << count) <= probability:
            return True
        if Fraction(bits, 1 << count) >= probability:
            return False
        bits, count = bits << 64 | int.from_bytes(os.urandom(8), "big"), count + 64


def _uniform_integers(bound: int, size: int) -> _Integers:
    """Return uniform integers below a bound, ``[size]``, by rejection."""
    unused = np.uint64(64 - (bound - 1).bit_length()) if bound > 1 else np.uint64(63)
    found = np.empty(0, np.int64)
    while len(found) < size:
        drawn = (_words(2 * (size - len(found))) >> unused).astype(np.int64)
        found = np.concatenate([found, drawn[drawn < bound]])
    return found[:size]


def _words(count: int) -> NDArray[np.uint64]:
    """Return uniform 64-bit words from the operating system's entropy, ``[count]``."""
    return np.frombuffer(os.urandom(8 * count), np.uint64)


def secure_normal(size: int) -> _Floats:
    """Return independent standard normal numbers, ``[size]``, in float64 precision.

    They are the inverse of the normal distribution at uniforms of 63 bits, with an independent
    sign; none is beyond 9.15 standard deviations. Unlike ``discrete_gaussian`` this is not exact:
    nothing is proven against attacks on the lowest bits of floating-point numbers.
    """
    words = _words(size)
    uniform = ((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64
    negative: _Floats = ndtri(uniform)
    return np.where(words & np.uint64(1) == 1, negative, -negative)
