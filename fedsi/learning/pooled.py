"""One learner on the pooled examples of many clients: a round of central training."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.data.batches import trim
from fedsi.data.population import ClientExamples, Population
from fedsi.data.protocol import PAD, Tokens
from fedsi.errors import DamagedError
from fedsi.experiment import Experiment
from fedsi.learning.client import LocalTrainer
from fedsi.learning.failures import FailureLog
from fedsi.learning.random_starts import started
from fedsi.learning.teacher import teacher_of
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import model_for
from fedsi.seeds import Purpose, generator
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch


@dataclass(frozen=True)
class Pool:
    """The examples of some clients."""

    examples: Tokens
    """``[examples, time + 1]``, padded at their ends."""
    owners: NDArray[np.int64]
    """The place of each example's client among the clients, ``[examples]``."""


@dataclass(frozen=True)
class PooledRound:
    """The result of a round."""

    parameters: NDArray[np.float32]
    memory: NDArray[np.float32]
    """Memory of the optimizer, as ``Optimizer.memory``."""
    rows: NDArray[np.float64]
    """A row for each client in the order of ``TRAINING_COLUMNS``. The loss and the
    steps of the pool are divided among the clients by their targets."""


class PooledTrainer:
    """Trains one learner on the pooled examples of a round's clients.

    Args:
        experiment: The configuration; ``client.*`` are the learner's settings.
        population: The clients.
        at: Called with each client before its examples are read.
    """

    def __init__(
        self, experiment: Experiment, population: Population, at: Callable[[int], None]
    ) -> None:
        self.model = model_for(experiment, population)
        self._experiment, self._population, self._at = experiment, population, at
        self._task = task_on(experiment, population)
        has_teacher = experiment.algorithm.teacher is not None
        self._teacher = teacher_of(experiment, population.vocabulary()) if has_teacher else None
        losses = self._teacher.losses if self._teacher else self._task.losses
        self._trainer = LocalTrainer(self.model, experiment.local_training, losses)
        self._failures = FailureLog()

    def train(
        self,
        start: Tensor,
        clients: Sequence[int],
        round_number: int,
        memory: NDArray[np.float32],
    ) -> PooledRound:
        """Train from the global parameters on the clients' examples.

        Clients whose examples cannot be read are left out and logged. If the learner diverges, the
        round is rejected and the parameters and the memory stay as they were.

        Args:
            start: The global parameters, ``[parameters]``.
            clients: Indices in the population.
            round_number: The round.
            memory: Of the optimizer after the round before; zeros before the first.
        """
        rows = np.zeros((len(clients), len(TRAINING_COLUMNS)))
        columns = dict(zip(TRAINING_COLUMNS, rows.T, strict=True))
        pool = self._pool(clients, round_number, columns["outcome"])
        settings, rounds = self._experiment.client, self._experiment.server.rounds
        factor = settings.learning_rate_schedule.factor(round_number, rounds)
        self._trainer.begin(start, factor, memory)
        batches = self._counted(pool, round_number, columns)
        if self._teacher:
            batches = self._teacher.before(batches)
        experiment = self._experiment
        result = self._trainer.train(
            started(batches, experiment.model, experiment.seed, round_number, 0)
        )
        trained = self._trainer.parameters
        if not bool(torch.isfinite(trained).all()):
            rows[columns["outcome"] == Outcome.AGGREGATED, 0] = Outcome.NOT_FINITE
            return PooledRound(start.numpy().copy(), memory, rows)
        shares = columns["tokens"] / max(1, result.tokens)
        columns["loss"][:] = result.loss * shares
        columns["steps"][:] = result.steps * shares
        columns["clipped_steps"][:] = result.clipped_steps * shares
        by_examples = self._experiment.server.averaging == "examples"
        there = columns["outcome"] == Outcome.AGGREGATED
        columns["weight"][there] = columns["examples"][there] if by_examples else 1.0
        return PooledRound(trained.numpy().copy(), self._trainer.memory(), rows)

    def _pool(
        self, clients: Sequence[int], round_number: int, outcome: NDArray[np.float64]
    ) -> Pool:
        """Return the examples that a round uses of its clients; failures go into ``outcome``."""
        parts, owners = [], []
        for place, client in enumerate(clients):
            self._at(client)
            try:
                parts.append(self._drawn(client, round_number))
                owners.append(np.full(len(parts[-1]), place, np.int64))
            except DamagedError:
                raise  # not the client's fault: results from a damaged file would be wrong
            except (Exception, SystemExit) as error:
                self._failures.add(client, error)
                outcome[place] = Outcome.RAISED
        self._failures.tell(f"failed in round {round_number}", len(clients))
        width = max((part.shape[1] for part in parts), default=0)
        padded = [
            np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=PAD)
            for part in parts
        ]
        return Pool(
            np.concatenate([np.zeros((0, width), np.int32), *padded]),
            np.concatenate([np.zeros(0, np.int64), *owners]),
        )

    def _drawn(self, client: int, round_number: int) -> Tokens:
        """Return a client's examples, cut to the cap at random as in local training."""
        examples = ClientExamples(self._population, client, round_number)
        seed, cap = self._experiment.seed, self._experiment.data.max_examples_per_client
        rng = generator(seed, Purpose.TRAINING_ORDER, round_number, client)
        return examples[rng.permutation(len(examples))[:cap]]

    def _counted(
        self, pool: Pool, round_number: int, columns: dict[str, NDArray[np.float64]]
    ) -> Iterator[Batch]:
        """Yield the round's batches, counting examples and targets of each client."""
        clients = len(columns["examples"])
        settings, seed = self._experiment.client, self._experiment.seed
        for places in pooled_batches(
            len(pool.owners),
            settings.batch_size,
            settings.epochs,
            settings.max_steps,
            generator(seed, Purpose.POOLED_ORDER, round_number),
        ):
            batch = self._task.batch(trim(pool.examples[places]))
            owners = pool.owners[places]
            columns["examples"] += np.bincount(owners, minlength=clients)
            columns["tokens"] += np.bincount(owners, batch.asked.sum(1), clients)
            yield batch


def pooled_batches(
    examples: int,
    batch_size: int,
    epochs: int,
    max_steps: int | None,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.int64]]:
    """Yield places of examples, shuffled anew in each epoch; the last batch may be smaller."""
    steps = 0
    for _ in range(epochs):
        order = rng.permutation(examples)
        for first in range(0, examples, batch_size):
            if steps == max_steps:
                return
            yield order[first : first + batch_size]
            steps += 1
