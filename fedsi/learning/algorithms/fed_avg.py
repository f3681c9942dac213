"""FedAvg: clients train locally, and the server averages their updates.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (arXiv
1602.05629), algorithm 1. The server optimizer uses the mean update as a gradient, as in Reddi et
al. (arXiv 2003.00295). With ``server.optimizer=sgd`` and ``server.learning_rate=1`` the next model
is the mean of the clients' models.
"""

from typing import TYPE_CHECKING

from fedsi.learning.algorithms.algorithm import (
    NO_PULL,
    UPDATE,
    Algorithm,
    Broadcast,
    Cohort,
    Contribution,
    LocalRun,
    Pull,
    Vector,
    Vectors,
)

if TYPE_CHECKING:
    from fedsi.experiment.algorithm import AlgorithmSettings


def pull(_settings: "AlgorithmSettings", _given: Broadcast) -> Pull:
    """Return no pull."""
    return NO_PULL


def finish(_settings: "AlgorithmSettings", _given: Broadcast, _local: LocalRun) -> Contribution:
    """Return the plain update, ``trained - start``."""
    return Contribution()


def combine(
    _settings: "AlgorithmSettings", state: Vectors, means: Vectors, _cohort: Cohort
) -> tuple[Vector, Vectors]:
    """Return the mean update."""
    return means[UPDATE], state


ALGORITHM = Algorithm(pull, finish, combine)
