"""Curves in a file store of MLflow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsi.experiment import Scalar
from fedsi.extras import optional
from fedsi.files import make_folder
from simulations.tracking.table import Tracked, Tracker

EXPERIMENT = "fedsi"
KEY = "fedsi.key"
"""The tag by which a resumed run is found."""
_ENDINGS = {"interrupted": "KILLED", "failed": "FAILED"}
"""MLflow's word for the end of a run; others are FINISHED."""


class StoredRun:
    """A run in a file store, through the client, which keeps no state in the process.

    Args:
        folder: The store's folder.
        run: The run.
    """

    def __init__(self, folder: Path, run: Tracked) -> None:
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # which it does not develop further
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        self._mlflow: Any = optional("mlflow", "mlflow")
        # It makes this folder once per process, and the run's may have been replaced since.
        make_folder(folder / ".trash")
        self._client: Any = self._mlflow.MlflowClient(tracking_uri=folder.resolve().as_uri())
        self._status = "FAILED"
        found = self._client.get_experiment_by_name(run.group or EXPERIMENT)
        place = (
            found.experiment_id
            if found
            else self._client.create_experiment(run.group or EXPERIMENT)
        )
        before = self._client.search_runs([place], f"tags.`{KEY}` = '{run.key}'")
        self._id: str = before[0].info.run_id if before else self._new(place, run)

    def _new(self, place: str, run: Tracked) -> str:
        entities = self._mlflow.entities
        started = self._client.create_run(place, run_name=run.name, tags={KEY: run.key})
        parameters = [entities.Param(key, str(value)) for key, value in run.settings.items()]
        self._client.log_batch(started.info.run_id, params=parameters)
        return str(started.info.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add metrics."""
        now, entities = int(1000 * time.time()), self._mlflow.entities
        metrics = [entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def end(self, status: str, facts: Mapping[str, Scalar]) -> None:
        """Add tags."""
        for key, value in {"status": status, **facts}.items():
            self._client.set_tag(self._id, key, str(value))
        self._status = _ENDINGS.get(status, "FINISHED")

    def close(self) -> None:
        """Note the end."""
        self._client.set_terminated(self._id, self._status)


TRACKER = Tracker(StoredRun, "mlflow", "mlflow")
