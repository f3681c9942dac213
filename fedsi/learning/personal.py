"""Personalisation: the global model fine-tuned on one client, and evaluated before and after.

Half of the client's examples fine-tune the model by the experiment's local training, without an
algorithm's pull, and without noise because nothing leaves the client. The other half is evaluated
before and after (the protocol of FedAvg with fine-tuning, as in arXiv 1909.12488, section 4).
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.batches import evaluation_batches, training_batches
from fedsi.data.protocol import Tokens, lengths_of
from fedsi.experiment import Experiment
from fedsi.experiment.personalisation import tuning_settings
from fedsi.learning.client import LocalTrainer
from fedsi.learning.evaluation import evaluate_client
from fedsi.learning.random_starts import started
from fedsi.models.model import Model
from fedsi.tasks.task import Counts, Task


def halves(examples: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide a client's examples by the order of their hashes.

    The division depends only on the examples, not on their order, and equal examples are in the
    same half.

    Args:
        examples: ``[examples, time + 1]``, padded at their ends.

    Returns:
        Positions of the examples for fine-tuning and of those for evaluation, about half each. One
        of them is empty if there are not two different examples.
    """
    lengths = lengths_of(examples)
    hashes = [
        hashlib.blake2b(row[:length].astype("<i4").tobytes(), digest_size=16).digest()
        for row, length in zip(examples, lengths, strict=True)
    ]
    order = sorted(range(len(hashes)), key=lambda place: (hashes[place], place))
    cut = len(order) // 2
    while 0 < cut < len(order) and hashes[order[cut]] == hashes[order[cut - 1]]:
        cut += 1
    return np.array(sorted(order[:cut]), np.int64), np.array(sorted(order[cut:]), np.int64)


class Personaliser:
    """Fine-tunes the global model on one client after another.

    Args:
        experiment: The configuration.
        model: The model's functions.
        task: The task.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
        batch_size: Examples in a batch of the evaluation.
    """

    def __init__(
        self, experiment: Experiment, model: Model, task: Task, unigram: Tensor, batch_size: int
    ) -> None:
        self._experiment = experiment
        self._model, self._task, self._unigram = model, task, unigram
        self._settings = tuning_settings(experiment)
        self._trainer = LocalTrainer(model, self._settings, task.losses)
        self._batch_size = batch_size

    def begin(self, parameters: Tensor) -> None:
        """Set the global parameters that the next clients start from."""
        self._start = parameters
        self._trainer.begin(parameters)

    def scores(self, examples: Tokens, client: int) -> Counts:
        """Return a client's counts before and after fine-tuning, ``[2 * columns of the task]``.

        They are zeros for a client that is too small to have examples in both halves.

        Args:
            examples: The client's examples, ``[examples, time + 1]``.
            client: Its index in the population.
        """
        tune, score = (examples[places] for places in halves(examples))
        columns = len(self._task.columns)
        if not len(tune) or not len(score):
            return np.zeros(2 * columns)
        before = self._counts(self._start, score)
        key = {"seed": self._experiment.seed, "round_number": 0, "client": client}
        batches = map(self._task.batch, training_batches(tune, self._settings, None, **key))
        self._trainer.train(started(batches, self._experiment.model, **key))
        return np.concatenate([before, self._counts(self._trainer.parameters, score)])

    def _counts(self, parameters: Tensor, examples: Tokens) -> Counts:
        named = self._model.layout.views(parameters)
        batches = map(self._task.batch, evaluation_batches([examples], self._batch_size))
        return evaluate_client(self._task, self._model, named, batches, self._unigram)
