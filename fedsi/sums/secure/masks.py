"""Masks of a client's vector of 64-bit integers, which cancel in the sum modulo 2^64.

Bonawitz et al., "Practical Secure Aggregation for Federated Learning on User-Held Data" (arXiv
1611.04482; in full in CCS 2017, IACR ePrint 2017/281). A client adds the stream of a seed of its
own, and for each neighbour the stream of a seed that the two agree on: one of them adds it, the
other subtracts it. Two agree by X25519, each with its private key and the other's public key.

A stream is AES-128 in counter mode, so a masked vector cannot be told from a uniform one without
the seeds. (Flower's ``pseudo_rand_gen`` folds a seed to 32 bits, which can be searched, and never
draws the largest value.)
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

SECRET_BYTES = 32
_PART = 1 << 12
"""Integers masked at a time, so that they stay in the processor's cache."""
_WORD = 8


def public_key(private: bytes) -> bytes:
    """Return the public key of a private one, 32 bytes each."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed_seed(private: bytes, other_public: bytes) -> bytes:
    """Return the seed that two clients share: each gets it from its own private key."""
    own = X25519PrivateKey.from_private_bytes(private)
    secret = own.exchange(X25519PublicKey.from_public_bytes(other_public))
    return blake2b(secret, digest_size=SECRET_BYTES, person=b"fedsi pair mask").digest()


def add_streams(vector: NDArray[np.int64], streams: Sequence[tuple[bytes, int]]) -> None:
    """Add the streams of seeds to a vector, modulo 2^64.

    Args:
        vector: Changed in place.
        streams: Seeds, each with 1 to add its stream or -1 to subtract it.
    """
    words = vector.view(np.uint64)
    zeros, drawn = bytes(_WORD * _PART), bytearray(_WORD * _PART + 16)
    stream = np.frombuffer(drawn, np.uint64, _PART)
    ciphers = [(_cipher(seed), np.add if sign > 0 else np.subtract) for seed, sign in streams]
    for first in range(0, len(words), _PART):
        part = words[first : first + _PART]
        nothing = zeros if len(part) == _PART else zeros[: _WORD * len(part)]
        for cipher, combined in ciphers:
            cipher.update_into(nothing, drawn)
            combined(part, stream[: len(part)], out=part)


def _cipher(seed: bytes) -> CipherContext:
    """Return the stream of a seed, from its beginning; a seed is used for one stream only."""
    key = blake2b(seed, digest_size=16, person=b"fedsi mask").digest()
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
