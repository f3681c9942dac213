"""pfl-research trains what a folder says; for a Python that has pfl and need not have fedsi.

Started as ``python pfl_peer.py FOLDER``. For each line on standard input it runs a round and prints
how many seconds that took; at the end it leaves its parameters in the folder. The model is the
natural module: padded batches, logits at every position, autograd, ``torch.optim.SGD``.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from torch import Tensor, nn
from torch.nn import functional

PAD = 0


def _max_normalise(x: Tensor) -> Tensor:
    return x / x.abs().amax(-1, keepdim=True).clamp_min(1e-12)


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "cifg": (torch.sigmoid, torch.tanh),
    "si_cifg": (lambda x: _max_normalise(x.relu()), _max_normalise),
}


class NaturalModel(nn.Module):
    """The model as one would write it."""

    def __init__(self, parameters: dict[str, Tensor], architecture: str) -> None:
        super().__init__()
        self.gate, self.squash = ACTIVATIONS[architecture]
        vocabulary, size = parameters["embedding"].shape
        self.hidden_size = len(parameters["cell.recurrent"])
        gates = 3 * self.hidden_size
        self.embedding = nn.Embedding(vocabulary, size)
        self.kernel = nn.Linear(size, gates)
        self.recurrent = nn.Linear(self.hidden_size, gates, bias=False)
        self.projection = nn.Linear(self.hidden_size, size)
        self.output = nn.Linear(size, vocabulary)
        with torch.no_grad():
            for mine, given in zip(self.fedsi_order(), parameters.values(), strict=True):
                mine.copy_(given)

    def fedsi_order(self) -> list[Tensor]:
        """Return the parameters in fedsi's order and shapes."""
        return [
            self.embedding.weight,
            self.kernel.weight.t(),
            self.recurrent.weight.t(),
            self.kernel.bias,
            self.projection.weight.t(),
            self.projection.bias,
            self.output.weight.t(),
            self.output.bias,
        ]

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, ``[batch, time, vocabulary]``."""
        vectors = self.embedding(ids)
        vectors = vectors * torch.rsqrt(vectors.square().mean(-1, keepdim=True).clamp_min(1e-12))
        projected = self.kernel(vectors)
        hidden = cell = vectors.new_zeros(len(ids), self.hidden_size)
        outputs = []
        for step in projected.unbind(1):
            f, o, g = (step + self.recurrent(hidden)).chunk(3, -1)
            f, o, g = self.gate(f), self.gate(o), self.squash(g)
            cell = f * cell + (1 - f) * g
            hidden = o * self.squash(cell)
            outputs.append(hidden)
        logits: Tensor = self.output(self.projection(torch.stack(outputs, 1)))
        return logits

    def loss(self, rows: Tensor, eval: bool = False) -> Tensor:  # noqa: A002  # pfl's name
        """Return the mean loss of the targets."""
        self.train(not eval)
        logits = self(rows[:, :-1])
        return functional.cross_entropy(
            logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=PAD
        )

    def metrics(self, rows: Tensor, eval: bool = True) -> dict[str, Any]:  # noqa: A002
        """Return what pfl wants of an evaluation, which does not take place."""
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
"""Where answers go; pfl's own prints go to standard error."""


def _say(**values: object) -> None:
    os.write(_ANSWERS, (json.dumps(values) + "\n").encode())


def main(folder: Path) -> None:
    """Train what the folder says."""
    os.dup2(2, 1)
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    flat = torch.from_numpy(np.load(folder / "start.npy"))
    pieces = flat.split([int(np.prod(shape)) for shape in settings["shapes"].values()])
    shaped = zip(settings["shapes"].items(), pieces, strict=True)
    model = NaturalModel({k: p.view(s) for (k, s), p in shaped}, settings["architecture"])
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
    final = torch.cat([piece.detach().flatten() for piece in model.fedsi_order()])
    np.save(folder / "pfl.npy", final.numpy(), allow_pickle=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
