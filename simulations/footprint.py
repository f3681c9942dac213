"""Lower bound of a run's memory, compared with the machine's before it starts."""

from fedsi.data.generated import GeneratedPopulation
from fedsi.data.population import Population
from fedsi.experiment import Experiment
from fedsi.host_memory import check_memory
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.learning.server_optimizers.table import SERVER_OPTIMIZERS
from fedsi.models.positions.ids import check_ids
from fedsi.models.positions.learned import check_length
from fedsi.models.table import architecture
from fedsi.privacy.mechanisms.table import MECHANISMS
from fedsi.tasks.table import task_of

PROCESS = 200 << 20
"""Bytes of Python with its libraries."""
ON_SERVER = 28
"""Bytes per parameter: the model (4), two integer sums (16), the mean and the next model (8). The
optimizer's moments and the mechanism's state are added to these."""
ON_NODE = 28
"""Bytes per parameter: the model, its trained copy and the gradient (12), two integer sums. The
client optimizer's moments are added to these."""
NUMBER = 4
"""Bytes of a float32."""
ATTENTION = 20
"""Bytes for each head and pair of tokens of an example: scores, bias, weights and two
intermediate results, float32."""


def check_footprint(experiment: Experiment, parameters: int, workers: int) -> None:
    """Refuse a run that cannot fit into the machine's memory.

    Activations of batches are not counted, because they depend on the length of the texts.

    Args:
        experiment: The experiment.
        parameters: Number of parameters of its model.
        workers: Number of node processes; 1 is this process.

    Raises:
        UserError: It needs more than the machine has; states both.
    """
    processes = 1 + (workers if workers > 1 else 0)
    vectors = _moments(experiment) + _remembered(experiment)
    on_server, on_node = _exchanged(experiment)
    server = (ON_SERVER + NUMBER * vectors + on_server) * parameters
    moments = OPTIMIZERS[experiment.client.optimizer].vectors
    node = (ON_NODE + NUMBER * moments + on_node) * parameters
    check_memory(
        processes * PROCESS + server + workers * node,
        f"a model of {parameters:,} parameters on {workers} worker(s)",
        "use fewer workers, or a smaller model or vocabulary",
    )


def check_lengths(experiment: Experiment, population: Population) -> None:
    """Refuse lengths that a Transformer cannot read, in training or on the grid.

    Raises:
        UserError: The attention of one example needs more memory than the machine has (states
            both), or a position is beyond the learned ones.
    """
    if not isinstance(population, GeneratedPopulation) or "heads" not in _model_keys(experiment):
        return
    clients = population.description.grid_clients
    for client, length in zip(clients, population.description.grid, strict=True):
        width = population.width(client)
        check_memory(
            PROCESS + ATTENTION * experiment.model.heads * width**2,
            f"the attention of an example of length {length}, which has {width:,} tokens,",
            "choose shorter lengths",
        )
    task = task_of(experiment)
    for row in population.samples():
        batch = task.batch(row[None])
        if batch.positions is None:
            check_length(experiment.model, batch.inputs.shape[1])
        else:
            check_ids(experiment.model, batch.positions)


def _model_keys(experiment: Experiment) -> frozenset[str]:
    return architecture(experiment.model.architecture).keys


def _moments(experiment: Experiment) -> int:
    """Return how many vectors the server optimizer keeps."""
    if SERVER_OPTIMIZERS.is_own(experiment.server.optimizer):
        return 0  # only its own code knows what a custom optimizer keeps
    optimizer = SERVER_OPTIMIZERS[experiment.server.optimizer]
    return len(optimizer.initial_state(experiment.server, 1))


def _exchanged(experiment: Experiment) -> tuple[int, int]:
    """Return the bytes per parameter of the algorithm's vectors, on the server and on a node.

    What is sent is there twice on the server, before and after the round; what is returned as two
    integer sums and their mean. A node has what is sent, the pull made of it, what is kept before
    and after, and what is returned with two integer sums.
    """
    algorithm = algorithm_of(experiment)
    sent, returned, kept = map(len, (algorithm.sent, algorithm.returned, algorithm.kept))
    return 2 * NUMBER * sent + 20 * returned, 2 * NUMBER * (sent + kept) + 20 * returned


def _remembered(experiment: Experiment) -> int:
    """Return how many vectors of earlier noise the mechanism keeps."""
    mechanism = experiment.privacy.mechanism
    return 0 if mechanism == "none" else MECHANISMS[mechanism].vectors(experiment)
