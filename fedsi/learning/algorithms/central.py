"""Central training: one learner over all clients' examples, the reference that federation misses.

There are no updates and no average. In a round the learner takes the examples of the cohort's
clients, pooled and shuffled across them (``client.batch_size`` and so on are the learner's), and
its parameters become the model. The state of its optimizer goes on from round to round, so AdamW is
AdamW. With ``server.sampling=shuffled`` the rounds of a pass use each client once, as an epoch
does.

How a round is trained is in ``fedsi.learning.pooled``; the functions that federated algorithms
exchange vectors with are not called.
"""

from typing import TYPE_CHECKING

from fedsi.learning.algorithms.algorithm import Algorithm
from fedsi.learning.algorithms.fed_avg import combine, finish, pull

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def check(experiment: "Experiment") -> None:
    """Refuse privacy, which central data has not, and a server optimizer, which has no updates."""
    server, name = experiment.server, f"algorithm.name={experiment.algorithm.name}"
    if experiment.privacy.mechanism != "none":
        raise ValueError(
            f"{name} pools the clients' examples, so there are no updates for "
            f"privacy.mechanism={experiment.privacy.mechanism} to clip; set privacy.mechanism=none"
        )
    if experiment.client.example_noise_multiplier is not None:
        raise ValueError(
            f"{name} pools the clients' examples, so none trains by DP-SGD on its own; leave "
            "client.example_noise_multiplier out"
        )
    if experiment.client.step != "one_by_one":
        raise ValueError(
            f"{name} has one learner, so client.step={experiment.client.step} has no clients to "
            "train at once; leave it out"
        )
    plain = server.optimizer == "sgd" and server.learning_rate == 1
    if not plain or server.schedule != "constant" or server.weight_decay:
        raise ValueError(
            f"{name} has one learner, whose parameters are the model; set server.optimizer=sgd and "
            "server.learning_rate=1, and leave server.schedule and server.weight_decay out (those "
            "of client.* are the learner's)"
        )


ALGORITHM = Algorithm(pull, finish, combine, pools=True, check=check)
