"""Metrics of each held-out client, as a table and as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedsi.data.corpus import Progress
from fedsi.data.heldout import are_test_clients
from fedsi.data.population import Population
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.extras import optional
from fedsi.files import cannot_write, make_folder
from fedsi.messages import evaluated
from fedsi.tasks.table import task_of
from fedsi.tasks.task import FIRST_COLUMNS
from simulations.evaluation import count_model
from simulations.safe_text import for_spreadsheet

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".parquet")
_OF_MANY = "client_"
"""Beginning of the names of metrics that compare clients with each other."""


def per_client(
    experiment: Experiment,
    flat: torch.Tensor,
    population: Population,
    clients: Sequence[int],
    progress: Progress,
) -> "pd.DataFrame":
    """Evaluate a model on clients, sentence by sentence.

    Args:
        experiment: The configuration.
        flat: The model's trained parameters, ``[parameters]``.
        population: The clients' population.
        clients: Indices in the population.
        progress: Called with the progress.

    Returns:
        A row for each client: its id in the corpus, its index, whether it is a validation or a
        test client, the numbers of its examples and targets, and the task's metrics, which are NaN
        if it cannot be evaluated.
    """
    import pandas as pd  # noqa: PLC0415 - half a second, for those who ask for a table

    task, names = task_of(experiment), population.names()
    counted = count_model(experiment, flat, population, clients, progress)
    test = are_test_clients(population.description, np.array(clients, dtype=np.int64))
    rows = []
    for client, row, good, is_test in zip(
        clients, counted, evaluated(counted), test.tolist(), strict=True
    ):
        metrics = task.metrics(row[None]) if good else {}
        counts = {name: int(row[FIRST_COLUMNS.index(name)]) for name in ("examples", "tokens")}
        own = {name: value for name, value in metrics.items() if not name.startswith(_OF_MANY)}
        rows.append(
            {
                "client": names[client],
                "index": client,
                "part": "test" if is_test else "validation",
                **(counts if good else {}),
                **own,
            }
        )
    columns = [name for name in task.names if not name.startswith(_OF_MANY)]
    head = ["client", "index", "part", "examples", "tokens"]
    return pd.DataFrame(rows, columns=[*head, *columns])


def check_file(path: Path) -> None:
    """Refuse a file that ``write_table`` could not write.

    Raises:
        UserError: Its ending is none of ``ENDINGS``, or the package for Parquet is not installed.
    """
    if path.suffix not in ENDINGS:
        raise UserError(
            f"{path} has no known ending for the clients' metrics; name a file that ends in "
            f"{' or '.join(ENDINGS)}"
        )
    if path.suffix == ".parquet":
        optional("pyarrow", "parquet")


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV or Parquet, by the file's ending.

    Raises:
        UserError: Same as ``check_file``, or the file cannot be written.
    """
    check_file(path)
    make_folder(path.parent)
    try:
        if path.suffix == ".parquet":
            table.to_parquet(path, index=False)
        else:
            safe: Any = table.assign(client=table["client"].map(for_spreadsheet))
            safe.to_csv(path, index=False)
    except OSError as error:
        raise cannot_write(path, error) from error
