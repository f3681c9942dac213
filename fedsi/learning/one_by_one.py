"""Training of clients one after another, in the same buffers."""

from collections.abc import Callable, Iterator
from functools import partial

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
from fedsi.models.model import Model
from fedsi.privacy import canaries
from fedsi.privacy.noise_streams import noise_key, normal_for_examples
from fedsi.tasks.table import task_on


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
        self._noise_key = noise_key(experiment, population.description.content_digest)
        self.parameters = self._trainer.parameters
        self.spans = self._trainer.spans

    def train(self, request: RoundRequest, sums: Sums) -> Iterator[Finished | Failed]:  # noqa: ARG002
        """Train the clients of a request in their order, as ``TrainingWay.train``."""
        schedule = self._experiment.client.learning_rate_schedule
        factor = schedule.factor(request.round_number, self._experiment.server.rounds)
        self._trainer.begin(request.start, factor)
        for place, client in enumerate(request.clients):
            self._at(client)
            try:
                result, contribution = self._train_client(request, client)
            except DamagedError:
                raise  # not the client's fault: results from a damaged file would be wrong
            except (Exception, SystemExit) as error:
                yield Failed(place, error)
            else:
                self.spans = self._trainer.spans
                yield Finished(place, result, contribution)

    def _train_client(self, request: RoundRequest, client: int) -> tuple[LocalResult, Contribution]:
        if client >= canaries.FIRST:
            seed, trainer = self._experiment.seed, self._trainer
            result = play_canary(seed, request, client, trainer.parameters)
            trainer.spans = np.array([[0, len(request.start)]])
            return result, Contribution()
        part = self._rounds.begin(request, client)
        result = self._run_steps(request, part)
        trained, rate = self._trainer.parameters.numpy(), self._trainer.learning_rate
        return result, self._rounds.finish(part, trained, result.steps, rate)

    def _run_steps(self, request: RoundRequest, part: Prepared) -> LocalResult:
        client, round_number = part.client, request.round_number
        if not isinstance(self._trainer, ExamplePrivateTrainer):
            return self._trainer.train(self._rounds.batches(round_number, client), part.pull)
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
