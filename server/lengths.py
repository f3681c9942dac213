"""Evaluation of the final model on the lengths of a generated population's grid."""

import math
from collections.abc import Sequence

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.data.population import Description
from fedsi.experiment import Experiment
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Counts, Task
from server.aggregation import count_clients_on_nodes
from server.nodes import Hosting

ByLength = dict[str, dict[str, float | None]]
"""Metrics at each length, by metric and then by length; None for one that is not finite."""


def evaluate_lengths_on_nodes(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    description: Description,
    parameters: NDArray[np.float32],
) -> ByLength:
    """Evaluate parameters on the grid's clients; one that fails has no metrics."""
    rows = count_clients_on_nodes(
        grid,
        hosting,
        experiment,
        parameters,
        np.array(description.grid_clients, np.int64),
        "the evaluation of lengths",
        len(description.grid) * experiment.task.grid_examples,
    )
    return metrics_by_length(task_of(experiment), description.grid, rows)


def metrics_by_length(task: Task, lengths: Sequence[str], rows: Counts) -> ByLength:
    """Return a task's metrics of the clients of a grid.

    Args:
        task: The task.
        lengths: The length of each client's examples.
        rows: A row for each, ``[lengths, columns]``.
    """
    found = [task.metrics(row[None]) for row in rows]
    return {
        name: {
            length: values[name] if math.isfinite(values[name]) else None
            for length, values in zip(lengths, found, strict=True)
        }
        for name in task.names
    }
