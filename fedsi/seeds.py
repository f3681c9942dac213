"""All randomness of a simulation as a pure function of (seed, purpose, round, client).

The seed is a public number, or, where nobody may recompute what is drawn, secret bytes.

No generator is ever stored or passed from one round to the next. So a run that was interrupted
continues with the same bits, and a client draws the same numbers whichever worker hosts it.
"""

from enum import IntEnum
from hashlib import blake2b

import numpy as np

Seed = int | bytes
"""An experiment's seed, not negative; or a secret of 32 bytes from the operating system."""


class Purpose(IntEnum):
    """What a stream of random numbers is for. The values are part of the format: reuse none."""

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


def generator(
    seed: Seed, purpose: Purpose, round_number: int = 0, client: int = 0
) -> np.random.Generator:
    """Return a fresh generator for one purpose in one round of one client.

    Args:
        seed: The experiment's seed, or a secret; the streams of a secret are keyed by BLAKE2b, so
            that none of them tells anything of the secret or of another stream.
        purpose: What the numbers are for.
        round_number: The round, from 1; 0 where the purpose has no rounds.
        client: The client's index in the population; 0 where the purpose has no clients.
    """
    if isinstance(seed, bytes):
        stream = b"".join(n.to_bytes(8, "little") for n in (purpose, round_number, client))
        key = blake2b(stream, key=seed, digest_size=16).digest()
        return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    entropy = np.random.SeedSequence([seed, int(purpose), round_number, client])
    return np.random.Generator(np.random.Philox(entropy))
