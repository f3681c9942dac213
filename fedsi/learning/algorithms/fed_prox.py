"""FedProx: federated averaging with clients kept near the global model.

Li et al., "Federated Optimization in Heterogeneous Networks" (arXiv 1812.06127), algorithm 2: a
client minimises ``F(theta) + mu / 2 ||theta - start||^2``, so ``mu (theta - start)`` is added to
every gradient. The update is clipped and weighted as in federated averaging and is all that leaves
the client, so the sensitivity of the sum is the clip norm here too.
"""

from typing import TYPE_CHECKING

import numpy as np

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.learning.algorithms.algorithm import Algorithm, Broadcast, Pull
from fedsi.learning.algorithms.fed_avg import combine, finish

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def pull(settings: AlgorithmSettings, given: Broadcast) -> Pull:
    """Return ``mu (theta - start)``."""
    return Pull(settings.mu, np.float32(-settings.mu) * given.start)


def check(experiment: "Experiment") -> None:
    """Refuse a pull that would move a step beyond the global model."""
    rate, mu = experiment.local_training.learning_rate, experiment.algorithm.mu
    if rate * (mu + experiment.client.weight_decay) >= 1:
        raise ValueError(
            f"algorithm.mu = {mu} (and client.weight_decay, if any) times client.learning_rate = "
            f"{rate} pulls a client beyond the global model; their product must be less than 1"
        )


ALGORITHM = Algorithm(pull, finish, combine, keys=frozenset({"mu"}), check=check)
