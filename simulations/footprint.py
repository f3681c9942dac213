"""The memory that a run takes at least, which is compared with the machine's before it starts."""

from fedsi.experiment import Experiment
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.memory import check_memory
from fedsi.privacy.mechanisms.table import MECHANISMS

PROCESS = 200 << 20
"""Bytes of Python with the libraries."""
ON_SERVER = 28
"""Bytes for each parameter: the model (4), two integer sums (16), the mean and the next model (8).
The optimizer's moments and what a mechanism remembers come on top."""
ON_NODE = 28
"""Bytes for each parameter: the model, its trained copy and the gradient (12), two integer sums.
The client optimizer's moments come on top."""
NUMBER = 4
"""Bytes of a float32."""


def check_footprint(experiment: Experiment, parameters: int, workers: int) -> None:
    """Refuse a run that cannot fit into the machine's memory.

    Activations of batches are left out: they depend on how long the texts are.

    Args:
        experiment: What is to be run.
        parameters: Of its model.
        workers: Processes of the nodes; 1 is this process.

    Raises:
        UserError: It needs more than the machine has; both are said.
    """
    processes = 1 + (workers if workers > 1 else 0)
    vectors = _moments(experiment) + _remembered(experiment)
    server = (ON_SERVER + NUMBER * vectors) * parameters
    node = (ON_NODE + NUMBER * OPTIMIZERS[experiment.client.optimizer].vectors) * parameters
    check_memory(
        processes * PROCESS + server + workers * node,
        f"a model of {parameters:,} parameters on {workers} worker(s)",
        "use fewer workers, or a smaller model or vocabulary",
    )


def _moments(experiment: Experiment) -> int:
    """Return how many vectors the server optimizer keeps."""
    return {"sgd": 0, "sgdm": 1, "adagrad": 1, "adam": 2, "yogi": 2}[experiment.server.optimizer]


def _remembered(experiment: Experiment) -> int:
    """Return how many vectors of earlier noise the mechanism keeps."""
    mechanism = experiment.privacy.mechanism
    return 0 if mechanism == "none" else MECHANISMS[mechanism].vectors(experiment)
