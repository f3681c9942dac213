"""One client's part in a round: what it is given, the batches it draws, what it contributes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.client_states import ClientStates
from fedsi.data.batches import training_batches
from fedsi.data.population import ClientExamples, Population
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import Broadcast, Contribution, LocalRun, Pull, Vectors
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.learning.client import LocalResult
from fedsi.learning.faults import fault_of, spoiled, suffer_before_training
from fedsi.learning.random_starts import started
from fedsi.messages import Outcome
from fedsi.privacy import canaries
from fedsi.tasks.table import task_on
from fedsi.tasks.task import Batch

Sums = NDArray[np.int64]
"""Sums in fixed point, ``[parameters]``."""


class WrongShapeError(ValueError):
    """A contribution with a vector of another size than the model's."""


@dataclass(frozen=True)
class Kept:
    """The vectors that the clients of a block keep."""

    states: ClientStates
    rounds: Mapping[int, int]
    """The round in which each client's state was written, 0 for none."""


@dataclass(frozen=True)
class RoundRequest:
    """A round as the clients of a block see it."""

    start: Tensor
    """The global parameters, ``[parameters]``."""
    clients: Sequence[int]
    """In cohort order."""
    round_number: int
    clip_norm: float
    """Infinite without clipping."""
    sent: Vectors
    """The server's vectors that the algorithm sends."""
    kept: Kept | None
    """The vectors that the clients keep; None if they keep none."""
    attempt: int
    """Earlier attempts of the same round."""


@dataclass(frozen=True)
class Prepared:
    """What a client is given before its training."""

    client: int
    given: Broadcast
    pull: Pull
    fault: str
    """Key of the fault that is injected; nothing for none."""


class ClientRounds:
    """Prepares and finishes the parts of clients; the steps between are taken elsewhere.

    Args:
        experiment: The configuration.
        population: The clients.
        size: Number of the model's parameters.
    """

    def __init__(self, experiment: Experiment, population: Population, size: int) -> None:
        self.algorithm = algorithm_of(experiment)
        self._experiment, self._population, self._size = experiment, population, size
        self.task = task_on(experiment, population)
        self._injects_faults = bool(experiment.faults.shares)

    def begin(self, request: RoundRequest, client: int) -> Prepared:
        """Return a client's part; raise its fault if one is injected before the training."""
        fault = ""
        if self._injects_faults:
            fault = fault_of(self._experiment, request.round_number, client, request.attempt)
            suffer_before_training(fault, self._experiment.server.round_timeout)
        given = Broadcast(request.start.numpy(), request.sent)
        if request.kept is not None:
            states, rounds, names = request.kept.states, request.kept.rounds, self.algorithm.kept
            kept = states.read(client, rounds[client], names, self._size)
            given = replace(given, kept=kept)
        return Prepared(
            client, given, self.algorithm.pull(self._experiment.algorithm, given), fault
        )

    def batches(self, round_number: int, client: int) -> Iterator[Batch]:
        """Yield a client's batches for a round."""
        experiment = self._experiment
        key = {"seed": experiment.seed, "round_number": round_number, "client": client}
        examples = ClientExamples(self._population, client, round_number)
        cap = experiment.data.max_examples_per_client
        drawn = training_batches(examples, experiment.client, cap, **key)
        return started(map(self.task.batch, drawn), experiment.model, **key)

    def finish(
        self, part: Prepared, trained: NDArray[np.float32], steps: int, learning_rate: float
    ) -> Contribution:
        """Return a client's contribution.

        Raises:
            WrongShapeError: A vector has another size than the model.
        """
        local = LocalRun(trained, steps, learning_rate)
        contribution = self.algorithm.finish(self._experiment.algorithm, part.given, local)
        if part.fault:
            whole = trained - part.given.start
            update = whole if contribution.update is None else contribution.update
            contribution = spoiled(part.fault, contribution, update)
        self._check_shapes(contribution)
        return contribution

    def _check_shapes(self, contribution: Contribution) -> None:
        """Refuse vectors of another size, which the compiled sums would read beyond their end."""
        vectors = {"update": contribution.update, **contribution.returned}
        for name, vector in vectors.items():
            if vector is not None and vector.shape != (self._size,):
                raise WrongShapeError(
                    f"its {name} has the shape {vector.shape} instead of {(self._size,)}"
                )


@dataclass(frozen=True)
class Added:
    """The outcome of adding a contribution to the sums."""

    outcome: Outcome
    """Whether it was added, or why not."""
    norm: float
    """Norm of the update before clipping; 0 without clipping."""
    clipped: bool


@dataclass(frozen=True)
class Finished:
    """A client after its training."""

    place: int
    """Its place among the clients of the request."""
    result: LocalResult
    contribution: Contribution
    added: Added | None = None
    """The outcome if it was added where the client was trained; None if it is still to be added."""


@dataclass(frozen=True)
class Failed:
    """A client that failed."""

    place: int
    error: BaseException

    @property
    def outcome(self) -> Outcome:
        """The reason, as the server counts it."""
        misshapen = isinstance(self.error, WrongShapeError)
        return Outcome.WRONG_SHAPE if misshapen else Outcome.RAISED


class TrainingWay(Protocol):
    """A way of training the clients of a block."""

    parameters: Tensor
    """The parameters of the latest finished client, ``[parameters]``, until the next one."""
    spans: NDArray[np.int64]
    """Spans of the parameters that may differ from the start, as first and one past last."""

    def train(self, request: RoundRequest, sums: Sums) -> Iterator[Finished | Failed]:
        """Train the clients of a request, in any order.

        Args:
            request: The request.
            sums: The fixed-point sum of the updates, ``[parameters]``; the updates that are added
                on another device are in it at the end.
        """
        ...

    def set_back(self) -> None:
        """Note that ``parameters`` were set back to those of the start."""
        ...


def play_canary(seed: int, request: RoundRequest, client: int, parameters: Tensor) -> LocalResult:
    """Make the update of a canary, which has no examples, instead of training it."""
    direction = canaries.direction(seed, client - canaries.FIRST, len(request.start))
    update = torch.from_numpy(direction).mul_(canaries.RAW_NORM * request.clip_norm)
    torch.add(request.start, update, out=parameters)
    return LocalResult(loss=0.0, tokens=0, examples=0, steps=0)
