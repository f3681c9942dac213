"""The model as one would write it, for peers; for a Python that need not have fedsi.

Padded batches, logits at every position, autograd.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

    def flat(self) -> NDArray[np.float32]:
        """Return the parameters as fedsi's flat vector, ``[parameters]``."""
        pieces = [piece.detach().flatten() for piece in self.fedsi_order()]
        vector: NDArray[np.float32] = torch.cat(pieces).numpy()
        return vector

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


def named_parameters(folder: Path, flat: NDArray[np.float32] | None = None) -> dict[str, Tensor]:
    """Return a folder's initial parameters, or others of the same model, by fedsi's names."""
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    vector = torch.from_numpy(np.load(folder / "start.npy") if flat is None else flat)
    pieces = vector.split([int(np.prod(shape)) for shape in settings["shapes"].values()])
    shaped = zip(settings["shapes"].items(), pieces, strict=True)
    return {name: piece.view(shape) for (name, shape), piece in shaped}
