"""The canaries of an audited run: extra clients, drawn into cohorts like the corpus's own.

Cohorts of an audited run are drawn from the training clients and the canaries together, by the same
sampler, and the run is accounted for that population. So a fault in sampling shows in the canaries'
scores and in how often they take part.
"""

import csv
import io

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.privacy import canaries

Ids = NDArray[np.int64]


def with_canaries(experiment: Experiment, training_clients: int) -> int:
    """Return the number of clients that cohorts are drawn from."""
    return training_clients + experiment.privacy.canaries


def to_train(experiment: Experiment, training_clients: int, drawn: Ids) -> tuple[Ids, Ids]:
    """Return a cohort's training clients, and those of its canaries that are included in the run.

    Args:
        experiment: The configuration; its seed decides which canaries are included.
        training_clients: Number of training clients; canaries follow them.
        drawn: The cohort, ``[clients]``.
    """
    is_client = drawn < training_clients
    numbers = drawn[~is_client] - training_clients
    if len(numbers):
        numbers = numbers[canaries.included(experiment.seed, experiment.privacy.canaries)[numbers]]
    return drawn[is_client], canaries.FIRST + numbers


def canaries_csv(
    scores: NDArray[np.float64], distances: NDArray[np.float64], included: NDArray[np.bool_]
) -> bytes:
    """Return the content of ``canaries.csv``, with one row per canary."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("canary", "included", "score", "distance"))
    columns = (included.tolist(), scores.tolist(), distances.tolist())
    writer.writerows(zip(range(len(scores)), *columns, strict=True))
    return text.getvalue().encode()


def read_canaries_csv(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the scores in a ``canaries.csv``, and whether each canary took part."""
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    included = [row["included"] == "True" for row in rows]
    return np.array([float(row["score"]) for row in rows]), np.array(included)
