"""Random starts of learned positions: a training example begins at any row of the table.

So rows that no training example is long enough to reach are trained too. An evaluation starts at
the ids that the task gives, or at 0.

Source: Ruoss et al. (arXiv 2305.16843) and, for coupled ids, Cho et al. (arXiv 2405.20671).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from fedsi.experiment import ModelSettings
from fedsi.seeds import Purpose, generator
from fedsi.tasks.task import Batch


def started(
    batches: Iterable[Batch], settings: ModelSettings, seed: int, round_number: int, client: int
) -> Iterator[Batch]:
    """Yield batches with random starts if the model has them, else the batches themselves.

    Args:
        batches: The batches of a client, or of a pool with client 0, in one round.
        settings: The model.
        seed: The experiment's seed.
        round_number: The round.
        client: The client's index in the population.
    """
    if not settings.random_start:
        yield from batches
        return
    rng = generator(seed, Purpose.RANDOM_START, round_number, client)
    for batch in batches:
        yield with_random_start(batch, settings.max_length, rng)


def with_random_start(batch: Batch, rows: int, rng: np.random.Generator) -> Batch:
    """Return a batch whose ids are moved by a random number, another for each example and stream.

    The largest id of an example stays below ``rows``; an example with a larger one is not moved.
    """
    ids = batch.positions
    if ids is None:
        ids = np.broadcast_to(np.arange(batch.inputs.shape[1]), (1, *batch.inputs.shape))
    room = np.maximum(rows - ids.max(axis=2, keepdims=True, initial=0), 1)
    moved = ids + rng.integers(0, room)
    return replace(batch, positions=np.where(ids >= 0, moved, ids))
