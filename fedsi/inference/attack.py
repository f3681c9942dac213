"""Robustness of a trained model: projected gradient steps on the word vectors of a text.

Each position of a text has a word vector v of its own that may be moved by delta, with the largest
entry of |delta| at most epsilon times the root mean square of the vectors. From delta = 0, a number
of steps raise the sum L of the losses of the text's targets::

    delta <- clamp(delta + 2.5 epsilon / steps sign(dL/d delta), -epsilon, epsilon)

Nothing is drawn, so a result is a function of model, texts, epsilon and steps. A model that divides
vectors by their root mean square does so to the moved ones, too.

Source: Madry et al. (arXiv 1706.06083) for the steps; on mixtures of experts Puigcerver et al.
(arXiv 2210.10253), who attack images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from fedsi.errors import UserError
from fedsi.inference.reading import TrainedModel
from fedsi.learning.predictions import batch_features
from fedsi.models.feedforward.table import part_of
from fedsi.models.layers import embed_tokens
from fedsi.models.parameters import Parameters
from fedsi.models.table import architecture
from fedsi.tasks.task import Batch, cross_entropy

TABLE = "embedding"


@dataclass(frozen=True)
class Attacked:
    """Sums over the targets of some texts at one epsilon."""

    targets: int
    right: int
    """Targets that are the likeliest word."""
    kept: int
    """Targets that are the likeliest word with and without the attack."""
    loss: float
    """Nats."""
    tokens: int
    """Tokens whose experts are compared, times blocks; 0 without a choice."""
    overlap: float
    """Sum over them of the shared experts over the experts of either."""

    def __add__(self, other: "Attacked") -> "Attacked":
        pairs = zip(_fields(self), _fields(other), strict=True)
        return Attacked(*(one + two for one, two in pairs))


def _fields(of: Attacked) -> tuple[Any, ...]:
    return of.targets, of.right, of.kept, of.loss, of.tokens, of.overlap


def check_attackable(trained: TrainedModel) -> None:
    """Refuse a model that has no table of word vectors.

    Raises:
        UserError: It has none.
    """
    if TABLE not in trained.parameters or trained.model.settings.is_imported:
        raise UserError(
            f"model.architecture={trained.model.settings.architecture} has no word vectors that "
            "fedsi knows, and the attack moves these; name a run of a built-in architecture"
        )


def attack_texts(
    trained: TrainedModel, batch: Batch, epsilons: Sequence[float], steps: int
) -> list[Attacked]:
    """Attack the texts of a batch.

    Args:
        trained: The model.
        batch: The texts, with at least one target.
        epsilons: Largest moves, as shares of the vectors' root mean square; 0 is no attack.
        steps: Steps of each attack.
    """
    texts = _Texts(trained, batch)
    unmoved = torch.zeros_like(texts.vectors)
    before = texts.predicted(unmoved)
    return [
        texts.compared(before, texts.predicted(texts.worst(epsilon, steps) if epsilon else unmoved))
        for epsilon in epsilons
    ]


@dataclass(frozen=True)
class _Predicted:
    logits: Tensor
    choices: list[Tensor]
    """Experts or groups that tokens use, ``[batch, time, *]`` for each block."""


class _Texts:
    """Texts whose positions have a row each in the table of word vectors."""

    def __init__(self, trained: TrainedModel, batch: Batch) -> None:
        self._model, self._parameters = trained.model, trained.parameters
        with torch.no_grad():
            inputs = torch.from_numpy(batch.inputs).long()
            embedded = embed_tokens(trained.model.settings, trained.parameters, inputs)
        self.vectors = embedded.flatten(0, 1)
        """Vectors before the attack, ``[batch * time, size]``."""
        rows = np.arange(batch.inputs.size, dtype=np.int32).reshape(batch.inputs.shape)
        self._batch = replace(batch, inputs=rows)
        self._real = torch.from_numpy(np.flip(np.cumsum(np.flip(batch.asked, 1), 1), 1) > 0)
        self._targets = torch.from_numpy(batch.targets[batch.asked]).long()

    def worst(self, epsilon: float, steps: int) -> Tensor:
        """Return the moves that raise the loss, of the shape of ``vectors``."""
        limit = epsilon * float(self.vectors.square().mean().sqrt())
        moved = torch.zeros_like(self.vectors)
        for _ in range(steps):
            leaf = moved.clone().requires_grad_()
            loss = cross_entropy(self._logits(self._with(leaf)), self._targets).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
            moved = (moved + 2.5 * limit / steps * gradient.sign()).clamp(-limit, limit)
        return moved

    def predicted(self, moved: Tensor) -> _Predicted:
        """Return logits and choices of the moved vectors."""
        with torch.no_grad():
            named = self._with(moved)
            return _Predicted(self._logits(named), self._choices(named))

    def compared(self, before: _Predicted, after: _Predicted) -> Attacked:
        """Return the sums after an attack."""
        was, now = (one.logits.argmax(-1) == self._targets for one in (before, after))
        shared = [
            _overlap(a, b)[self._real] for a, b in zip(before.choices, after.choices, strict=True)
        ]
        return Attacked(
            targets=len(self._targets),
            right=int(now.sum()),
            kept=int((was & now).sum()),
            loss=float(cross_entropy(after.logits, self._targets).double().sum()),
            tokens=sum(map(len, shared)),
            overlap=float(sum(one.sum() for one in shared)),
        )

    def _with(self, moved: Tensor) -> Parameters:
        return {**self._parameters, TABLE: self.vectors + moved}

    def _logits(self, named: Parameters) -> Tensor:
        features = batch_features(self._model, named, self._batch)
        # A tied output layer keeps its own vectors.
        return self._model.logits(self._parameters, features[torch.from_numpy(self._batch.asked)])

    def _choices(self, named: Parameters) -> list[Tensor]:
        settings = self._model.settings
        if "feedforward" not in architecture(settings.architecture).keys:
            return []
        choices = part_of(settings).choices
        if choices is None:
            return []
        rows = torch.from_numpy(self._batch.inputs).long()
        given = self._batch.positions
        ids = None if given is None else torch.from_numpy(given)
        model = cast("Any", self._model)
        _, seen = model.features_and_parts(named, rows, ids)
        parts = [model.part_parameters(named, layer) for layer in range(len(seen))]
        return [choices(settings, own, x) for own, x in zip(parts, seen, strict=True)]


def _overlap(one: Tensor, two: Tensor) -> Tensor:
    """Return the shared ones over those of either along the last axis; 1 if there are none."""
    either = (one | two).sum(-1)
    return torch.where(either > 0, (one & two).sum(-1) / either.clamp_min(1), 1.0)
