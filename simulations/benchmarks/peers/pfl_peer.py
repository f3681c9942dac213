"""The peer process of pfl-research; for a Python with pfl that need not have fedsi.

Started as ``python pfl_peer.py FOLDER``. For each line on standard input it runs a round and prints
its seconds; at the end it saves its parameters in the folder.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from natural import NaturalModel, named_parameters
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor


class PflModel(NaturalModel):
    """The model with the methods that pfl requires."""

    def metrics(self, rows: Tensor, eval: bool = True) -> dict[str, Any]:  # noqa: A002
        """Return the metrics that pfl expects; there is no evaluation."""
        return {"loss": Weighted(self.loss(rows, eval).item() * len(rows), len(rows))}


class RoundByRound(TrainingProcessCallback):
    """Waits for a line before a round and prints its time afterwards."""

    def __init__(self, rounds: int) -> None:
        self._left = rounds

    def on_train_begin(self, *, model: Any) -> Any:
        """Wait for the first line."""
        del model
        self._await()
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Any, model: Any, *, central_iteration: int
    ) -> Any:
        """Print the time and wait for the next line."""
        del aggregate_metrics, model, central_iteration
        _say(seconds=time.perf_counter() - self._began)
        self._left -= 1
        if self._left:
            self._await()
        return False, Metrics()

    def _await(self) -> None:
        sys.stdin.readline()
        self._began = time.perf_counter()


_ANSWERS = os.dup(1)
"""Descriptor for replies; pfl's own output goes to standard error."""


def _say(**values: object) -> None:
    os.write(_ANSWERS, (json.dumps(values) + "\n").encode())


def main(folder: Path) -> None:
    """Train the task in a folder."""
    os.dup2(2, 1)
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    model = PflModel(named_parameters(folder), settings["architecture"], settings["heads"])
    rows, starts = np.load(folder / "rows.npy").astype(np.int64), np.load(folder / "starts.npy")
    visits = iter(range(len(starts) - 1))

    def dataset(visit: int) -> Dataset:
        mine = torch.from_numpy(rows[starts[visit] : starts[visit + 1]])
        return Dataset(raw_data=[mine], user_id=str(visit))

    data = FederatedDataset(dataset, lambda: next(visits))
    rounds, cohort = settings["rounds"], settings["cohort"]
    FederatedAveraging().run(
        backend=SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()]),
        model=PyTorchModel(model, torch.optim.SGD, torch.optim.SGD(model.parameters(), lr=1.0)),
        algorithm_params=NNAlgorithmParams(rounds, rounds + 1, cohort, None),
        model_train_params=NNTrainHyperParams(
            local_batch_size=settings["batch"],
            local_num_epochs=1,
            local_learning_rate=settings["learning_rate"],
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=settings["batch"]),
        callbacks=[RoundByRound(rounds)],
    )
    np.save(folder / "pfl.npy", model.flat(), allow_pickle=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
