"""Local training of one client from the global parameters, and evaluation on one client."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.first_steps import FirstStep
from fedsi.learning.step_by_autograd import GeneralSgd
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.model import Model
from fedsi.models.table import pass_by_hand
from fedsi.sums.updates import copy_spans
from fedsi.tasks.task import Batch, Losses, cross_entropy


@dataclass(frozen=True)
class LocalResult:
    """The result of a client's training, besides its parameters."""

    loss: float
    """Sum of the targets' losses before the step that used them, in nats."""
    tokens: int
    examples: int
    """Examples used, counted once per epoch."""
    steps: int
    clipped_steps: int = 0
    """Steps whose gradient was clipped as a whole."""


class LocalTrainer:
    """Trains one client after another in the same buffers.

    In an untied embedding, rows of words that the client does not have remain those of the start,
    and neither copying nor summing the parameters reads them.

    Args:
        model: The model's functions.
        settings: The settings of local training.
        losses: The loss of each target, as ``Task.losses``.
    """

    def __init__(
        self, model: Model, settings: ClientSettings, losses: Losses = cross_entropy
    ) -> None:
        size = model.layout.size
        self.parameters = torch.zeros(size)
        """The client's parameters after ``train``, ``[parameters]``."""
        self.spans = np.array([[0, size]])
        """Spans of the parameters that may differ from the start, as first and one past last."""
        self._sgd: FusedSgd | GeneralSgd
        self._sparse = False
        if losses is cross_entropy and pass_by_hand(model):
            self._sgd = FusedSgd(model, settings, self.parameters)
            self._row = model.settings.embedding_size
            self._embedded = model.vocabulary_size * self._row
            self._sparse = not (model.settings.tied_output or settings.weight_decay)
        else:
            self._sgd = GeneralSgd(model, settings, self.parameters, losses)
        self._settings = settings
        self._start: Tensor | None = None
        self._memory: NDArray[np.float32] | None = None
        self.learning_rate = settings.learning_rate

    def begin(
        self, start: Tensor, factor: float = 1.0, memory: NDArray[np.float32] | None = None
    ) -> None:
        """Set the start of the next clients.

        Args:
            start: The global parameters, ``[parameters]``; they must not change until the next
                call.
            factor: Factor of the learning rate in this round.
            memory: The state of the optimizer with which each training begins; None to begin
                anew.
        """
        self._start = start
        self._memory = memory
        self.learning_rate = self._settings.learning_rate * factor
        self.parameters.copy_(start)
        self.spans = np.zeros((0, 2), np.int64)

    def train(
        self, batches: Iterable[Batch], pull: Pull = NO_PULL, first: FirstStep | None = None
    ) -> LocalResult:
        """Train from the start over the batches; the result is in ``parameters``.

        Args:
            batches: The batches, one step each.
            pull: The algorithm's pull, added to every step's gradient.
            first: The first batch's gradient, if it was computed with those of other clients.
        """
        start = self._start
        assert start is not None, "begin was not called"  # noqa: S101
        copy_spans(start.numpy(), self.spans, self.parameters.numpy())
        self.spans = np.array([[0, len(start)]])
        words: list[NDArray[np.int32]] = []
        loss, tokens, examples, before = 0.0, 0, 0, self._sgd.clipped
        if self._memory is None:
            self._sgd.optimizer.begin(self.learning_rate)
        else:
            self._sgd.optimizer.resume(self.learning_rate, self._memory)
        for batch in batches:
            if first is not None and isinstance(self._sgd, FusedSgd):
                step_loss, targets = self._sgd.step(batch, pull, first)
                first = None
            else:
                step_loss, targets = self._sgd.step(batch, pull)
            loss += step_loss
            tokens += targets
            examples += len(batch)
            words.append(batch.inputs.ravel())
        if self._sparse and pull.adds_nothing and not self._lost():
            self.spans = self._touched(words)
        clipped = self._sgd.clipped - before
        return LocalResult(loss, tokens, examples, steps=len(words), clipped_steps=clipped)

    def memory(self) -> NDArray[np.float32]:
        """Return the state of the optimizer after ``train``."""
        return self._sgd.optimizer.memory()

    def _lost(self) -> bool:
        """Whether a gradient whose norm is not a number has changed all parameters."""
        return bool(torch.isnan(self.parameters[-1]))

    def _touched(self, words: list[NDArray[np.int32]]) -> NDArray[np.int64]:
        """Return the spans of the rows of some words and of everything but the embedding."""
        rows = np.unique(np.concatenate(words)).astype(np.int64) if words else np.zeros(0, np.int64)
        spans = np.empty((len(rows) + 1, 2), np.int64)
        spans[:-1, 0] = rows * self._row
        spans[:-1, 1] = spans[:-1, 0] + self._row
        spans[-1] = self._embedded, len(self.parameters)
        return spans
