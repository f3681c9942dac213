"""A trained model's counts on each held-out client, in a file of the trial's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.checksums import sealed, unsealed
from fedsi.data.corpus import silent
from fedsi.data.heldout import are_test_clients
from fedsi.files import write_atomically
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Counts
from server.rounds import evaluated_clients
from server.runs.folder import MEASURED
from simulations.evaluation import count_clients, evaluate_lengths, open_heldout, score_json
from simulations.finished_run import open_run


@dataclass(frozen=True)
class Measured:
    """A trained model's counts on the evaluated held-out clients."""

    clients: NDArray[np.int64]
    test: NDArray[np.bool_]
    """Mask of the test clients; the others are validation clients."""
    rows: Counts
    """``[clients, columns of the task]``; NaN for a client that could not be evaluated."""
    lengths: Mapping[int, Mapping[str, Any] | None]
    """``score_json`` by sequence length; None for a length that the model cannot read."""


def measure(path: Path, cache: Path, lengths: Sequence[int]) -> None:
    """Evaluate a finished run client by client, and at sequence lengths, and save the results.

    Saved results are not computed again.

    Raises:
        UserError: The run's files are damaged, or its corpus has changed.
    """
    run = open_run(path, trust=True)  # its own code has just run
    known = _read(path, run.summary.model_sha256)
    done = {} if known is None else dict(known["lengths"])
    missing = [length for length in lengths if str(length) not in done]
    if known is not None and not missing:
        return
    population, longest = open_heldout(run, cache, silent), run.trained.model.longest
    readable = [length for length in missing if longest is None or length <= longest]
    done |= {str(length): None for length in missing}
    for score in evaluate_lengths(run, population, readable, silent):
        done[str(score.length)] = score_json(score)
    if known is None:
        clients = evaluated_clients(run.experiment, population.description)
        rows = count_clients(run, population, clients.tolist(), silent)
        known = {
            "model_sha256": run.summary.model_sha256,
            "columns": list(task_of(run.experiment).columns),
            "clients": clients.tolist(),
            "test": are_test_clients(population.description, clients).tolist(),
            "rows": rows.tolist(),
        }
    write_atomically(path / MEASURED, sealed({**known, "lengths": done}))


def read_measured(path: Path, model_sha256: str) -> Measured | None:
    """Read the results of ``measure``; None if there are none, or they are of another model."""
    found = _read(path, model_sha256)
    if found is None:
        return None
    return Measured(
        np.array(found["clients"], np.int64),
        np.array(found["test"], np.bool_),
        np.array(found["rows"], np.float64).reshape(len(found["clients"]), -1),
        {int(length): score for length, score in found["lengths"].items()},
    )


def is_measured(path: Path, model_sha256: str, lengths: Sequence[int]) -> bool:
    """Whether a run has been measured, including some lengths."""
    found = read_measured(path, model_sha256)
    return found is not None and all(length in found.lengths for length in lengths)


def _read(path: Path, model_sha256: str) -> dict[str, Any] | None:
    try:
        found = unsealed((path / MEASURED).read_bytes())
        wanted = {"clients", "test", "rows", "lengths", "columns"}
        if found["model_sha256"] != model_sha256 or not wanted <= found.keys():
            return None
    except (OSError, ValueError, KeyError):
        return None
    return found
