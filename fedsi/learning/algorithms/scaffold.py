"""SCAFFOLD: control variates that correct the drift of clients with different data.

Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning" (arXiv
1910.06378), algorithm 1 with option II. The server has a control variate c, and each client i has
its own, c_i; all are initially zero. A client with K steps of rate eta from x to y

    steps by      g - c_i + c
    keeps         c_i' = c_i - c + (x - y) / (K eta)
    contributes   y - x  and  c_i' - c_i

and the server adds the sum of ``c_i' - c_i``, divided by the number N of all clients, to c. So c is
always the mean of c_i over all clients, including those that have never taken part.

With weight decay, ``(x - y) / (K eta)`` includes the decay, which c then corrects too.
"""

from typing import TYPE_CHECKING

import numpy as np

from fedsi.experiment.algorithm import AlgorithmSettings
from fedsi.learning.algorithms.algorithm import (
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
    from fedsi.experiment import Experiment

CONTROL, CHANGE = "control", "control_change"


def pull(_settings: AlgorithmSettings, given: Broadcast) -> Pull:
    """Return ``c - c_i``."""
    return Pull(vector=given.sent[CONTROL] - given.kept[CONTROL])


def finish(_settings: AlgorithmSettings, given: Broadcast, local: LocalRun) -> Contribution:
    """Return the plain update, the change of the client's control variate, and the new one."""
    old = given.kept[CONTROL]
    moved_by = np.float32(local.steps * local.learning_rate)
    if not moved_by:  # no examples, or the last round of a schedule that ends at 0
        return Contribution(None, {CHANGE: np.zeros_like(old)}, {CONTROL: old})
    mean_step = (given.start - local.trained) / moved_by
    new = old - given.sent[CONTROL] + mean_step
    return Contribution(None, {CHANGE: new - old}, {CONTROL: new})


def combine(
    _settings: AlgorithmSettings, state: Vectors, means: Vectors, cohort: Cohort
) -> tuple[Vector, Vectors]:
    """Return the mean update, and c with the changes of the clients' control variates."""
    share = np.float32(cohort.clients / cohort.population)
    return means[UPDATE], {CONTROL: state[CONTROL] + share * means[CHANGE]}


def check(experiment: "Experiment") -> None:
    """Refuse averages and optimizers under which the control variates would be biased."""
    if experiment.server.averaging != "uniform":
        raise ValueError(
            "algorithm.name=scaffold needs server.averaging=uniform: its control variate is the "
            "plain mean of the clients'"
        )
    if experiment.client.optimizer != "sgd":
        raise ValueError(
            f"algorithm.name=scaffold needs client.optimizer=sgd, not "
            f"{experiment.client.optimizer}: a client's control variate is the mean gradient of "
            "its steps"
        )


ALGORITHM = Algorithm(
    pull,
    finish,
    combine,
    keys=frozenset({"state_limit"}),
    sent=(CONTROL,),
    returned=(CHANGE,),
    kept=(CONTROL,),
    check=check,
)
