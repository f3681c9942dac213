"""Secret sharing (Shamir, Communications of the ACM 1979): any t of n shares give the secret.

The secret is the constant term of a polynomial of degree t - 1 over a prime field, and a share is
its value at the holder's place; t values determine it, and fewer say nothing about it. Python's
integers make a share of 25 coefficients in 10 microseconds, where bitwise arithmetic in GF(2^128),
as in pycryptodome and so in Flower's ``create_shares``, takes several milliseconds.
"""

from collections.abc import Mapping, Sequence
from hashlib import shake_256

PRIME = 2**521 - 1
"""A Mersenne prime above every secret of 32 bytes."""
SHARE_BYTES = 72
"""Bytes of a share: the 66 that the prime needs, up to whole words of 8."""


def polynomial(secret: bytes, seed: bytes, threshold: int) -> list[int]:
    """Return the coefficients of a secret's polynomial, constant term first, ``[threshold]``.

    Args:
        secret: At most 64 bytes.
        seed: What the other coefficients are drawn from; only the secret's owner may know it.
        threshold: Number of shares that give the secret.
    """
    # 80 bytes, so that the remainder is uniform up to 2^-119.
    drawn = shake_256(seed).digest(80 * (threshold - 1))
    others = (drawn[first : first + 80] for first in range(0, len(drawn), 80))
    return [int.from_bytes(secret, "little"), *(int.from_bytes(one) % PRIME for one in others)]


def share(coefficients: Sequence[int], place: int) -> bytes:
    """Return the share of a holder, ``SHARE_BYTES`` long.

    Args:
        coefficients: The polynomial.
        place: The holder's place, from 0; its share is the value at ``place + 1``.
    """
    value, at = 0, place + 1
    for coefficient in reversed(coefficients):
        value = (value * at + coefficient) % PRIME
    return value.to_bytes(SHARE_BYTES, "little")


def reconstructed(shares: Mapping[int, bytes], size: int) -> bytes:
    """Return the secret of some shares, by Lagrange's interpolation at 0.

    Args:
        shares: As many shares as the threshold, by place.
        size: Bytes of the secret.

    Raises:
        ValueError: They are not shares of a secret of this size.
    """
    values = {place + 1: int.from_bytes(one, "little") for place, one in shares.items()}
    secret = 0
    for at, value in values.items():
        above, below = value, 1
        for other in values:
            if other != at:
                above = above * other % PRIME
                below = below * (other - at) % PRIME
        secret = (secret + above * pow(below, -1, PRIME)) % PRIME
    try:
        return secret.to_bytes(size, "little")
    except OverflowError:
        raise ValueError("the shares are not those of one secret") from None
