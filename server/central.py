"""A round of central training: one node trains the learner on the whole cohort's examples."""

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.data.population import WHOLE
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.messages import TRAINING_COLUMNS, TrainedPooled, TrainPooled
from server.aggregation import Aggregate
from server.exchange import Failure, exchange
from server.nodes import Hosting, NodesError
from server.replies import ReplyError, check_pooled

MEMORY = "memory"
"""Name of the learner's optimizer memory among the algorithm's vectors in the server's state."""


def initial_memory(experiment: Experiment, parameters: int) -> NDArray[np.float32]:
    """Return the memory of the learner's optimizer before the first round, zeros."""
    return np.zeros(OPTIMIZERS[experiment.client.optimizer].memory(parameters), np.float32)


def train_pooled(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    parameters: NDArray[np.float32],
    memory: NDArray[np.float32],
    clients: NDArray[np.int64],
    round_number: int,
) -> tuple[Aggregate, NDArray[np.float32], NDArray[np.float32]]:
    """Train the learner on a cohort's pooled examples; which node does it changes no bit.

    Returns:
        The rows of the clients, without sums; the next parameters; the next memory.

    Raises:
        UserError: No node hosts all clients.
        NodesError: The node failed.
    """
    nothing = np.zeros(0, np.int64)
    if not len(clients):
        empty = Aggregate(nothing, np.zeros((0, len(TRAINING_COLUMNS))))
        return empty, parameters, memory
    whole = hosting.by_shard().get(WHOLE)
    if whole is None:
        raise UserError(
            f"algorithm.name={experiment.algorithm.name} trains one learner on the examples of all "
            "clients, but each node hosts a shard of them; give a node the whole population"
        )
    request = TrainPooled(experiment.to_toml(), round_number, parameters, memory, clients)
    timeout = experiment.server.round_timeout
    ((node, reply),) = exchange(
        grid, {whole[0]: request}, TrainedPooled, timeout, group=f"round {round_number}"
    )
    if isinstance(reply, Failure):
        raise NodesError(f"node {node} could not train in round {round_number}: {reply.reason}")
    try:
        check_pooled(reply, experiment, len(clients), len(parameters), len(memory))
    except ReplyError as error:
        raise NodesError(
            f"node {node} sent an invalid reply in round {round_number}: {error}"
        ) from None
    # Copied to be writable.
    return Aggregate(nothing, reply.rows), reply.parameters.copy(), reply.memory.copy()
