"""The models as one would naturally write them, for peers whose Python need not have fedsi.

They use padded batches, logits at every position, and autograd.
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

Parameters = dict[str, Tensor]


def _max_normalise(x: Tensor) -> Tensor:
    return x / x.abs().amax(-1, keepdim=True).clamp_min(1e-12)


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "cifg": (torch.sigmoid, torch.tanh),
    "si_cifg": (lambda x: _max_normalise(x.relu()), _max_normalise),
}


class NaturalRecurrent(nn.Module):
    """A recurrent cell and its projection."""

    def __init__(self, parameters: Parameters, architecture: str) -> None:
        super().__init__()
        self.gate, self.squash = ACTIVATIONS[architecture]
        size, gates = parameters["cell.kernel"].shape
        self.hidden_size = gates // 3
        self.kernel = nn.Linear(size, gates)
        self.recurrent = nn.Linear(self.hidden_size, gates, bias=False)
        self.projection = nn.Linear(self.hidden_size, size)

    def fedsi_order(self) -> list[Tensor]:
        """Return the parameters in fedsi's order and shapes."""
        return [
            self.kernel.weight.t(),
            self.recurrent.weight.t(),
            self.kernel.bias,
            self.projection.weight.t(),
            self.projection.bias,
        ]

    def forward(self, vectors: Tensor) -> Tensor:
        """Return ``[batch, time, size]`` for vectors of that shape."""
        projected = self.kernel(vectors)
        hidden = cell = vectors.new_zeros(len(vectors), self.hidden_size)
        outputs = []
        for step in projected.unbind(1):
            f, o, g = (step + self.recurrent(hidden)).chunk(3, -1)
            f, o, g = self.gate(f), self.gate(o), self.squash(g)
            cell = f * cell + (1 - f) * g
            hidden = o * self.squash(cell)
            outputs.append(hidden)
        states: Tensor = self.projection(torch.stack(outputs, 1))
        return states


class Block(nn.Module):
    """A pre-norm Transformer block, scale-invariant or not."""

    def __init__(self, size: int, inner: int, heads: int, *, si: bool) -> None:
        super().__init__()
        self.heads, self.si = heads, si
        self.attention_norm = nn.LayerNorm(size, eps=1e-12, elementwise_affine=not si)
        self.project = nn.Linear(size, 3 * size, bias=False)
        self.gather = nn.Linear(size, size, bias=False)
        self.feedforward_norm = nn.LayerNorm(size, eps=1e-12, elementwise_affine=not si)
        self.inner = nn.Linear(size, inner, bias=False)
        self.outer = nn.Linear(inner, size, bias=False)

    def fedsi_order(self) -> list[Tensor]:
        """Return the parameters in fedsi's order and shapes."""
        return [
            *self.attention_norm.parameters(),
            *self.project.weight.t().chunk(3, 1),
            self.gather.weight.t(),
            *self.feedforward_norm.parameters(),
            self.inner.weight.t(),
            self.outer.weight.t(),
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after the block, ``[batch, time, size]``."""
        parts = self.project(self.attention_norm(x)).chunk(3, -1)
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts
        )
        if self.si:
            scores = (queries @ keys.mT / queries.shape[-1] ** 0.5).relu().tril()
            gathered = scores / scores.sum(-1, keepdim=True).clamp_min(1e-12) @ values
        else:
            gathered = functional.scaled_dot_product_attention(
                queries, keys, values, is_causal=True
            )
        x = x + self.gather(gathered.transpose(1, 2).flatten(-2))
        result: Tensor = x + self.outer(self.inner(self.feedforward_norm(x)).relu())
        return result


class Blocks(nn.Module):
    """A Transformer with learned positions."""

    def __init__(self, parameters: Parameters, architecture: str, heads: int) -> None:
        super().__init__()
        longest, size = parameters["positions.table"].shape
        si = architecture == "si_transformer"
        layers = sum(name.endswith(".query") for name in parameters)
        inner = parameters["blocks.0.feedforward.inner"].shape[1]
        self.positions = nn.Embedding(longest, size)
        self.blocks = nn.Sequential(*(Block(size, inner, heads, si=si) for _ in range(layers)))
        self.norm = nn.LayerNorm(size, eps=1e-12, elementwise_affine=not si)

    def fedsi_order(self) -> list[Tensor]:
        """Return the parameters in fedsi's order and shapes."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        pieces = [piece for block in blocks for piece in block.fedsi_order()]
        return [self.positions.weight, *pieces, *self.norm.parameters()]

    def forward(self, vectors: Tensor) -> Tensor:
        """Return ``[batch, time, size]`` for vectors of that shape."""
        positions = self.positions(torch.arange(vectors.shape[1]))
        result: Tensor = self.norm(self.blocks(vectors + positions))
        return result


class NaturalModel(nn.Module):
    """A naturally written model: embeddings, a body, an output layer."""

    def __init__(self, parameters: Parameters, architecture: str, heads: int) -> None:
        super().__init__()
        vocabulary, size = parameters["embedding"].shape
        self.embedding = nn.Embedding(vocabulary, size)
        self.body = (
            NaturalRecurrent(parameters, architecture)
            if architecture in ACTIVATIONS
            else Blocks(parameters, architecture, heads)
        )
        self.output = nn.Linear(size, vocabulary)
        with torch.no_grad():
            for mine, given in zip(self.fedsi_order(), parameters.values(), strict=True):
                mine.copy_(given)

    def fedsi_order(self) -> list[Tensor]:
        """Return the parameters in fedsi's order and shapes."""
        output = [self.output.weight.t(), self.output.bias]
        return [self.embedding.weight, *self.body.fedsi_order(), *output]

    def flat(self) -> NDArray[np.float32]:
        """Return the parameters as fedsi's flat vector, ``[parameters]``."""
        pieces = [piece.detach().flatten() for piece in self.fedsi_order()]
        vector: NDArray[np.float32] = torch.cat(pieces).numpy()
        return vector

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits, ``[batch, time, vocabulary]``."""
        vectors = self.embedding(ids)
        vectors = vectors * torch.rsqrt(vectors.square().mean(-1, keepdim=True).clamp_min(1e-12))
        logits: Tensor = self.output(self.body(vectors))
        return logits

    def loss(self, rows: Tensor, eval: bool = False) -> Tensor:  # noqa: A002  # pfl's name
        """Return the mean loss of the targets."""
        self.train(not eval)
        logits = self(rows[:, :-1])
        return functional.cross_entropy(
            logits.flatten(0, 1), rows[:, 1:].flatten(), ignore_index=PAD
        )


def named_parameters(folder: Path, flat: NDArray[np.float32] | None = None) -> Parameters:
    """Return a folder's initial parameters, or others of the same model, by fedsi's names."""
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    vector = torch.from_numpy(np.load(folder / "start.npy") if flat is None else flat)
    pieces = vector.split([int(np.prod(shape)) for shape in settings["shapes"].values()])
    shaped = zip(settings["shapes"].items(), pieces, strict=True)
    return {name: piece.view(shape) for (name, shape), piece in shaped}
