"""Keys and streams of seeded noise, on the server and on clients.

Noise that depended on the seed alone would be the same in two runs of one seed. The models M of
noise multipliers 1 and 2 would then reveal the model without noise, ``2 M(1) - M(2)``, and two
corpora that differ in one client would reveal that client. So the noise of a round depends on
everything that determines its release: the settings, the content of the training clients and the
exact sums. Runs that differ in any of these share no noise. A run that is repeated, resumed or
spread over more workers has the same noise.

This hides nothing from someone who knows the seed and guesses the sums; ``privacy.secure_noise``
does.
"""

import json
from hashlib import blake2b, sha256

import numpy as np
from numpy.typing import NDArray

import fedsi
from fedsi.experiment import Experiment
from fedsi.experiment.experiment import ENDING, WAITING
from fedsi.experiment.paths import is_path
from fedsi.seeds import Purpose, generator

NO_INPUT = {
    "client.products",  # they are in the sums
    "server.evaluate_every",
    "server.evaluation_clients",
    "privacy.secure_aggregation",
    "privacy.mask_neighbours",
    *WAITING,
    *ENDING,
}
"""Settings that do not affect what noise is added to."""


def noise_key(experiment: Experiment, content_digest: str) -> bytes:
    """Return the key of a run's noise, 32 bytes.

    Args:
        experiment: The configuration.
        content_digest: ``Description.content_digest`` of the population.
    """
    # Paths are left out because a file's content is in the content digest and in the sums. Defaults
    # are left out so that a new key does not change the noise of all runs.
    defaults = type(experiment)().flat()
    settings = {
        key: "a file" if is_path(key, value) else value
        for key, value in experiment.flat().items()
        if value != defaults[key]
        and key not in NO_INPUT
        and not key.startswith("faults.")  # they are in the sums
        and not (key == "data.corpus" and is_path(key, value))
    }
    text = json.dumps([fedsi.__version__, settings, content_digest], sort_keys=True)
    return blake2b(text.encode(), digest_size=32).digest()


def round_key(key: bytes, sums: NDArray[np.int64]) -> bytes:
    """Return the key of the noise on some sums, 32 bytes.

    Args:
        key: The run's key.
        sums: Exact sums in fixed point, ``[parameters]``.
    """
    # SHA-256 first, because it is the faster one on processors with instructions for it.
    content = sha256(np.ascontiguousarray(sums, "<i8").data).digest()
    return blake2b(content, key=key, digest_size=32).digest()


def standard_normal(key: bytes, round_number: int, size: int, draw: int) -> NDArray[np.float32]:
    """Return the draw-th independent standard normal vector of a round, ``[size]``."""
    rng = generator(key, Purpose.NOISE, round_number, draw)
    return rng.standard_normal(size, dtype=np.float32)


def normal_for_examples(
    key: bytes, round_number: int, client: int, step: int, hidden: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return independent standard normal numbers for a step of DP-SGD, ``[parameters]``.

    Args:
        key: The run's key.
        round_number: The round, from 1.
        client: The client's index in the population.
        step: The step, from 0.
        hidden: The batch's sum of clipped gradients, ``[parameters]``.
    """
    content = sha256(hidden.data).digest() + step.to_bytes(8, "little")
    batch = blake2b(content, key=key, digest_size=32).digest()
    rng = generator(batch, Purpose.EXAMPLE_NOISE, round_number, client)
    return rng.standard_normal(len(hidden), dtype=np.float32)


def normal_for_count(key: bytes, round_number: int, unclipped: int, clients: int) -> float:
    """Return a standard normal number for the count of unclipped clients.

    Args:
        key: The key of the round's sums.
        round_number: The round, from 1.
        unclipped: The count.
        clients: Number of clients in the sum.
    """
    counts = unclipped.to_bytes(8, "little") + clients.to_bytes(8, "little")
    counted = blake2b(counts, key=key, digest_size=32).digest()
    return float(generator(counted, Purpose.CLIP_COUNT_NOISE, round_number).standard_normal())
