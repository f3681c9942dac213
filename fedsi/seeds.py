"""All randomness of a simulation as a pure function of (seed, purpose, round, client).

The seed is a public number or, if nobody may recompute the draws, secret bytes.

No generator is stored or passed from one round to the next. So an interrupted run continues with
the same bits, and a client draws the same numbers on every worker.
"""

from enum import IntEnum
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Seed = int | bytes
"""An experiment's non-negative seed, or a secret of 32 bytes from the operating system."""


class Purpose(IntEnum):
    """The purpose of a stream of random numbers. Values are part of the format: never reuse one."""

    INITIALISATION = 1
    COHORT = 2
    TRAINING_ORDER = 3
    SYNTHETIC_CLIENT = 4
    DEVICE_SPEED = 5
    AVAILABILITY = 6
    REPORTING = 7
    PARTITION = 8
    NOISE = 9
    CLIP_COUNT_NOISE = 10
    CANARY = 11
    EXAMPLE_NOISE = 12
    WRITING = 13
    STUDY_DRAW = 14
    BOOTSTRAP = 15
    POOLED_ORDER = 16
    MASK = 18
    FAULT = 19
    GENERATED_EXAMPLES = 20
    GENERATED_SIZES = 21
    RANDOM_START = 22
    CALIBRATION = 25
    RATE_CLIENTS = 30
    PUBLIC_ORDER = 31


def generator(
    seed: Seed, purpose: Purpose, round_number: int = 0, client: int = 0
) -> np.random.Generator:
    """Return a new generator for one purpose in one round of one client.

    Args:
        seed: The experiment's seed, or a secret. Streams of a secret are keyed by BLAKE2b, so none
            of them reveals anything about the secret or another stream.
        purpose: The purpose of the numbers.
        round_number: The round, from 1; 0 if the purpose has no rounds.
        client: The client's index in the population; 0 if the purpose has no clients.
    """
    if isinstance(seed, bytes):
        stream = b"".join(n.to_bytes(8, "little") for n in (purpose, round_number, client))
        key = blake2b(stream, key=seed, digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    entropy = np.random.SeedSequence([seed, int(purpose), round_number, client])
    return np.random.Generator(np.random.Philox(entropy))


def splitmix64(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each key: the finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
