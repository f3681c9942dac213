"""FedDF: after averaging, the server distils the ensemble of the clients' models into the average.

Lin, Kong, Stich and Jaggi, "Ensemble Distillation for Robust Model Fusion in Federated Learning"
(arXiv 2006.07242), algorithm 1. The student starts from the mean of the models and takes steps on
public examples towards ``softmax(mean_k logits_k / T)``, with the logits of each aggregated
client's model. No label of the public examples is used.

Here every client has one vote, in the mean too, which the paper weights by examples; and the number
of steps is fixed, while the paper stops early on validation data.

The server needs every client's update, not only their sum: memory for all of them, no noise and no
secure aggregation.
"""

import numpy as np

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.learning.algorithms.algorithm import Algorithm, Updates, Vector
from fedsi.learning.algorithms.fed_avg import combine, finish, pull
from fedsi.learning.algorithms.imitation import PUBLIC_KEYS
from fedsi.learning.algorithms.median import check


def aggregate(_settings: AlgorithmSettings, updates: Updates) -> Vector:
    """Return the mean update."""
    mean: Vector = updates.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    aggregate=aggregate,
    keys=PUBLIC_KEYS | {"memory_limit"},
    imitated="cohort",
    check=check,
)
