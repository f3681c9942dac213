"""What happens on one client: training from the global parameters, or an evaluation of them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.predictions import predictions
from fedsi.learning.step_by_autograd import GeneralSgd
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.models.table import architecture
from fedsi.sums.updates import copy_spans
from fedsi.tasks.task import Batch, Counts, Losses, Task, cross_entropy


@dataclass(frozen=True)
class LocalResult:
    """What a client's training left besides its parameters."""

    loss: float
    """Sum over the targets of their loss before the step that used them, in nats."""
    tokens: int
    examples: int
    """Examples used, an example counting once for each epoch."""
    steps: int


class LocalTrainer:
    """Trains one client after another in the same buffers.

    Rows of an untied embedding that no word of the client asked for stay those of the start, and
    no pass over the parameters reads them.

    Args:
        model: The model's functions.
        settings: Local training.
        losses: The loss of each target, as ``Task.losses``.
    """

    def __init__(
        self, model: Model, settings: ClientSettings, losses: Losses = cross_entropy
    ) -> None:
        size = model.layout.size
        self.parameters = torch.zeros(size)
        """The client's parameters after ``train``, ``[parameters]``."""
        self.spans = np.array([[0, size]])
        """First and one past the last of the parameters that may differ from the start's."""
        self._sgd: FusedSgd | GeneralSgd
        self._sparse = False
        by_hand = architecture(model.settings.architecture).by_hand
        if losses is cross_entropy and by_hand:
            self._sgd = FusedSgd(model, settings, self.parameters)
            self._row = model.settings.embedding_size
            self._embedded = model.vocabulary_size * self._row
            self._sparse = not (
                model.settings.tied_output or settings.weight_decay or settings.gradient_clip
            )
        else:
            self._sgd = GeneralSgd(model, settings, self.parameters, losses)
        self._settings = settings
        self._start: Tensor | None = None
        self.learning_rate = settings.learning_rate

    def begin(self, start: Tensor, factor: float = 1.0) -> None:
        """Set what the next clients start from.

        Args:
            start: The global parameters, ``[parameters]``; they must not change meanwhile.
            factor: What the learning rate is multiplied by in this round.
        """
        self._start = start
        self.learning_rate = self._settings.learning_rate * factor
        self.parameters.copy_(start)
        self.spans = np.zeros((0, 2), np.int64)

    def train(self, batches: Iterable[Batch], pull: Pull = NO_PULL) -> LocalResult:
        """Train from the start over the batches; the result is in ``parameters``.

        Args:
            batches: The batches, a step each.
            pull: The gradient that the algorithm adds to that of every step.
        """
        start = self._start
        assert start is not None, "begin was not called"  # noqa: S101
        copy_spans(start.numpy(), self.spans, self.parameters.numpy())
        self.spans = np.array([[0, len(start)]])
        words: list[NDArray[np.int32]] = []
        loss, tokens, examples = 0.0, 0, 0
        self._sgd.optimizer.begin(self.learning_rate)
        for batch in batches:
            step_loss, targets = self._sgd.step(batch, pull)
            loss += step_loss
            tokens += targets
            examples += len(batch)
            words.append(batch.inputs.ravel())
        if self._sparse and pull.adds_nothing:
            self.spans = self._touched(words)
        return LocalResult(loss=loss, tokens=tokens, examples=examples, steps=len(words))

    def _touched(self, words: list[NDArray[np.int32]]) -> NDArray[np.int64]:
        """Return the spans of the rows of some words and of all that is not embedding."""
        rows = np.unique(np.concatenate(words)).astype(np.int64) if words else np.zeros(0, np.int64)
        spans = np.empty((len(rows) + 1, 2), np.int64)
        spans[:-1, 0] = rows * self._row
        spans[:-1, 1] = spans[:-1, 0] + self._row
        spans[-1] = self._embedded, len(self.parameters)
        return spans


def evaluate(
    task: Task, model: Model, parameters: Parameters, batches: Iterable[Batch], unigram: Tensor
) -> Counts:
    """Count what a task counts of a client's examples: ``[columns]``.

    Args:
        task: The task.
        model: The model's functions.
        parameters: Named tensors without client axis.
        batches: What is asked of the model.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
    """
    counts = np.zeros(len(task.columns))
    with torch.inference_mode():
        for batch in batches:
            outputs, _ = predictions(model, parameters, batch)
            counts += task.counts(outputs, batch, unigram)
    return counts
