"""Training of clients one after another, in the same buffers.

The gradients of their first steps are computed in groups where that is possible.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np

from fedsi.data.batches import poisson_batches
from fedsi.data.population import ClientExamples, Population
from fedsi.errors import DamagedError
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.learning.client import LocalResult, LocalTrainer
from fedsi.learning.client_round import (
    ClientRounds,
    Failed,
    Finished,
    Prepared,
    RoundRequest,
    Sums,
    play_canary,
)
from fedsi.learning.dp_sgd import ExamplePrivateTrainer
from fedsi.learning.first_steps import FirstStep, FirstSteps, can_join
from fedsi.models.model import Model
from fedsi.privacy import canaries
from fedsi.privacy.noise_streams import noise_key, normal_for_examples
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch


@dataclass
class _Turn:
    """A client, and what was computed for it before its turn."""

    place: int
    """Its place among the clients of the request."""
    client: int
    batch: Batch | None = None
    """Its first batch; None if it was not drawn."""
    rest: Iterator[Batch] = field(default_factory=lambda: iter(()))
    """Its other batches."""
    first: FirstStep | None = None
    """The gradient of the first batch, if it was computed."""

    @property
    def targets(self) -> int:
        """Number of targets of the first batch."""
        return 0 if self.batch is None else self.batch.count


class OneByOne:
    """The way ``client.step = "one_by_one"``.

    Args:
        experiment: The configuration.
        population: The clients.
        model: The model's functions.
        rounds: Prepares and finishes the clients' parts.
        at: Called with each client before it is trained.
    """

    def __init__(
        self,
        experiment: Experiment,
        population: Population,
        model: Model,
        rounds: ClientRounds,
        at: Callable[[int], None],
    ) -> None:
        self._experiment, self._population = experiment, population
        self._rounds, self._at = rounds, at
        self._task = task_on(experiment, population)
        settings = experiment.local_training
        self._trainer: LocalTrainer | ExamplePrivateTrainer = (
            LocalTrainer(model, settings, self._task.losses)
            if settings.example_noise_multiplier is None
            else ExamplePrivateTrainer(model, settings, self._task.losses)
        )
        self._first = (
            FirstSteps(model, settings)
            if isinstance(self._trainer, LocalTrainer)
            and can_join(model, settings, self._task.losses)
            else None
        )
        self._noise_key = noise_key(experiment, population.description.content_digest)
        self.parameters = self._trainer.parameters
        self.spans = self._trainer.spans

    def train(self, request: RoundRequest, sums: Sums) -> Iterator[Finished | Failed]:  # noqa: ARG002
        """Train the clients of a request in their order, as ``TrainingWay.train``."""
        schedule = self._experiment.client.learning_rate_schedule
        factor = schedule.factor(request.round_number, self._experiment.server.rounds)
        self._trainer.begin(request.start, factor)
        for turn in self._turns(request):
            self._at(turn.client)
            try:
                result, contribution = self._train_client(request, turn)
            except DamagedError:
                raise  # not the client's fault: results from a damaged file would be wrong
            except (Exception, SystemExit) as error:
                yield Failed(turn.place, error)
            else:
                self.spans = self._trainer.spans
                yield Finished(turn.place, result, contribution)

    def set_back(self) -> None:
        """Note that the parameters were set back: the next client's need not be copied."""
        self._trainer.spans = np.zeros((0, 2), np.int64)

    def _turns(self, request: RoundRequest) -> Iterator[_Turn]:
        """Yield the clients in their order."""
        if self._first is None:
            yield from (_Turn(place, client) for place, client in enumerate(request.clients))
            return
        self._first.begin(request.start)
        group: list[_Turn] = []
        targets = 0
        for place, client in enumerate(request.clients):
            turn = self._drawn(request, place, client)
            targets += turn.targets
            if targets > self._first.most_targets:
                yield from self._joined(self._first, group)
                group, targets = [], turn.targets
            group.append(turn)
        yield from self._joined(self._first, group)

    def _drawn(self, request: RoundRequest, place: int, client: int) -> _Turn:
        """Draw a client's first batch; an error is left to its turn, where it will occur again."""
        if client >= canaries.FIRST:
            return _Turn(place, client)
        self._at(client)
        try:
            batches = self._rounds.batches(request.round_number, client)
            batch = next(batches, None)
        except DamagedError:
            raise  # not the client's fault: results from a damaged file would be wrong
        except (Exception, SystemExit):
            return _Turn(place, client)
        return _Turn(place, client, batch, batches)

    @staticmethod
    def _joined(first: FirstSteps, group: Sequence[_Turn]) -> Sequence[_Turn]:
        """Compute the gradients of first steps in one pass, if there are several."""
        batches = [turn.batch for turn in group if turn.batch is not None and turn.targets]
        if len(batches) > 1:
            gradients = iter(first.gradients(batches))
            for turn in group:
                turn.first = next(gradients) if turn.targets else None
        return group

    def _train_client(self, request: RoundRequest, turn: _Turn) -> tuple[LocalResult, Contribution]:
        client = turn.client
        if client >= canaries.FIRST:
            seed, trainer = self._experiment.seed, self._trainer
            result = play_canary(seed, request, client, trainer.parameters)
            trainer.spans = np.array([[0, len(request.start)]])
            return result, Contribution()
        part = self._rounds.begin(request, client)
        result = self._run_steps(request, part, turn)
        trained, rate = self._trainer.parameters.numpy(), self._trainer.learning_rate
        return result, self._rounds.finish(part, trained, result.steps, rate)

    def _run_steps(self, request: RoundRequest, part: Prepared, turn: _Turn) -> LocalResult:
        client, round_number = part.client, request.round_number
        if not isinstance(self._trainer, ExamplePrivateTrainer):
            if turn.batch is None:
                return self._trainer.train(self._rounds.batches(round_number, client), part.pull)
            return self._trainer.train(chain([turn.batch], turn.rest), part.pull, turn.first)
        experiment = self._experiment
        noise = partial(normal_for_examples, self._noise_key, round_number, client)
        batches = poisson_batches(
            ClientExamples(self._population, client, round_number),
            experiment.client,
            experiment.nominal_examples,
            seed=experiment.seed,
            round_number=round_number,
            client=client,
        )
        return self._trainer.train(map(self._task.batch, batches), noise, part.pull)
