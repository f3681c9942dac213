"""When the canaries of an audited run take part, and what the run showed about them."""

import csv
import io

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.privacy import canaries
from fedsi.seeds import Purpose, Seed, generator

Ids = NDArray[np.int64]


def canary_cohort(
    experiment: Experiment, training_clients: int, round_number: int, seed: Seed
) -> Ids:
    """Return the canaries of a round, drawn like clients: ``[canaries of the round]``.

    Each that takes part at all joins with the clients' own probability; in shuffled passes each
    has its turn in a pass, always the same one.

    Args:
        experiment: The configuration; its seed decides which canaries take part at all.
        training_clients: Their number.
        round_number: The round, from 1.
        seed: Decides who takes part in which round, as for clients.
    """
    size = experiment.server.cohort_size
    taking_part = np.flatnonzero(canaries.included(experiment.seed, experiment.privacy.canaries))
    if experiment.server.sampling == "shuffled":
        turns = taking_part % (training_clients // size)
        drawn = turns == (round_number - 1) % (training_clients // size)
    else:
        rng = generator(seed, Purpose.CANARY, round_number, canaries.FIRST)
        drawn = rng.random(len(taking_part)) < size / training_clients
    cohort: Ids = canaries.FIRST + taking_part[drawn].astype(np.int64)
    return cohort


def canary_scores(
    experiment: Experiment, released: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return each canary's score and whether it took part, ``[canaries]`` both.

    Args:
        experiment: The audited run's.
        released: The sum of all that it released, ``[parameters]``.
    """
    seed, count = experiment.seed, experiment.privacy.canaries
    return canaries.scores(seed, count, released), canaries.included(seed, count)


def canaries_csv(scores: NDArray[np.float64], included: NDArray[np.bool_]) -> bytes:
    """Return the content of ``canaries.csv``: a row for each canary."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("canary", "included", "score"))
    writer.writerows(zip(range(len(scores)), included.tolist(), scores.tolist(), strict=True))
    return text.getvalue().encode()


def read_canaries_csv(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the scores, and whether each canary took part, from what ``canaries_csv`` returned."""
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    included = [row["included"] == "True" for row in rows]
    return np.array([float(row["score"]) for row in rows]), np.array(included)
