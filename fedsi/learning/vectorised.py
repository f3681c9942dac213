"""Training of many clients at once, and the sum of their updates where they were trained."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedsi import accelerator
from fedsi.errors import DamagedError
from fedsi.experiment import Experiment
from fedsi.learning.algorithms import fed_avg
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.learning.client import LocalResult
from fedsi.learning.client_round import (
    Added,
    ClientRounds,
    Failed,
    Finished,
    Prepared,
    RoundRequest,
    Sums,
    play_canary,
)
from fedsi.learning.step_vectorised import Member, VectorisedSgd
from fedsi.limits import largest_contribution
from fedsi.messages import Outcome
from fedsi.models.model import Model
from fedsi.privacy import canaries
from fedsi.sums.clipping import layer_ends
from fedsi.sums.lanes import add_clipped_lanes, add_lanes

WINDOW = 16
"""Groups whose clients are read at a time; among them, clients with similar numbers of steps train
together."""


@dataclass(frozen=True)
class _Waiting:
    """A client that is ready to be trained."""

    place: int
    part: Prepared
    member: Member


class Vectorised:
    """The way ``client.step = "vectorised"``.

    Args:
        experiment: The configuration.
        model: The model's functions.
        rounds: Prepares and finishes the clients' parts.
        at: Called with each client before it is read.

    Raises:
        UserError: The device is not there.
    """

    def __init__(
        self,
        experiment: Experiment,
        model: Model,
        rounds: ClientRounds,
        at: Callable[[int], None],
    ) -> None:
        self._experiment, self._model = experiment, model
        self._rounds, self._at = rounds, at
        self._device = accelerator.use(experiment.client.device)
        size = model.layout.size
        self.parameters = torch.zeros(size)
        self.spans = np.array([[0, size]])
        self._lanes = accelerator.lanes(self._device, experiment.client.lanes)
        settings = experiment.local_training.model_copy(update={"lanes": self._lanes})
        start = torch.zeros(size, device=self._device)
        self._sgd = VectorisedSgd(model, settings, start, rounds.task.losses)
        plain = rounds.algorithm.finish is fed_avg.finish and not experiment.faults.shares
        self._adds = (
            plain and experiment.server.norm_bound is None and accelerator.has_float64(self._device)
        )
        shapes = list(model.layout.shapes.values())
        self._layer_ends = layer_ends(shapes, experiment.privacy.clipping)
        self._limit = float(np.float32(largest_contribution(experiment.server.largest_cohort)))

    def train(self, request: RoundRequest, sums: Sums) -> Iterator[Finished | Failed]:
        """Train the clients of a request in groups, as ``TrainingWay.train``."""
        schedule = self._experiment.client.learning_rate_schedule
        factor = schedule.factor(request.round_number, self._experiment.server.rounds)
        rate = self._experiment.local_training.learning_rate * factor
        start = request.start.to(self._device)
        added = torch.zeros(len(start), dtype=torch.int64, device=self._device)
        window = WINDOW * self._lanes
        for first in range(0, len(request.clients), window):
            waiting: list[_Waiting] = []
            for place in range(first, min(first + window, len(request.clients))):
                yield from self._read(request, place, waiting)
            for group in groups(waiting, self._lanes):
                yield from self._train_group(request, group, start, rate, added)
        sums += added.cpu().numpy()

    def set_back(self) -> None:
        """Do nothing: each client's parameters are copied anyway."""

    def _read(
        self, request: RoundRequest, place: int, waiting: list[_Waiting]
    ) -> Iterator[Finished | Failed]:
        """Read a client, which then waits; yield it at once if it fails or has no examples."""
        client = request.clients[place]
        self._at(client)
        try:
            if client >= canaries.FIRST:
                seed = self._experiment.seed
                result = play_canary(seed, request, client, self.parameters)
                yield Finished(place, result, Contribution())
                return
            part = self._rounds.begin(request, client)
            batches = list(self._rounds.batches(request.round_number, client))
        except DamagedError:
            raise  # not the client's fault: results from a damaged file would be wrong
        except (Exception, SystemExit) as error:
            yield Failed(place, error)
        else:
            member = Member.of(batches, part.pull, self._model.longest)
            waiting.append(_Waiting(place, part, member))

    def _train_group(
        self,
        request: RoundRequest,
        group: Sequence[_Waiting],
        start: Tensor,
        rate: float,
        sums: Tensor,
    ) -> Iterator[Finished | Failed]:
        counts = self._sgd.train(start, [one.member for one in group], rate)
        results = [
            _result(one.member, counts.loss[lane], int(counts.clipped[lane]))
            for lane, one in enumerate(group)
        ]
        if self._adds:
            told = self._add(start, results, request.clip_norm, sums)
            for one, result, added in zip(group, results, told, strict=True):
                yield Finished(one.place, result, Contribution(), added)
            return
        for lane, (one, result) in enumerate(zip(group, results, strict=True)):
            self.parameters.copy_(self._sgd.parameters[lane])
            try:
                trained = self.parameters.numpy()
                contribution = self._rounds.finish(one.part, trained, result.steps, rate)
            except (Exception, SystemExit) as error:
                yield Failed(one.place, error)
            else:
                yield Finished(one.place, result, contribution)

    def _add(
        self, start: Tensor, results: Sequence[LocalResult], clip_norm: float, sums: Tensor
    ) -> list[Added]:
        """Add the lanes of a group to the sums on the device."""
        trained = self._sgd.parameters[: len(results)]
        if np.isinf(clip_norm):
            by_examples = self._experiment.server.averaging == "examples"
            weights = [float(one.examples) if by_examples else 1.0 for one in results]
            on_device = torch.tensor(weights, dtype=torch.float32).to(self._device)
            accepted = add_lanes(start, trained, on_device, self._limit, sums).tolist()
            outcomes = [
                Outcome.AGGREGATED if one else _refusal(lane)
                for one, lane in zip(accepted, trained, strict=True)
            ]
            return [Added(one, 0.0, clipped=False) for one in outcomes]
        norms, clipped = add_clipped_lanes(start, trained, self._layer_ends, clip_norm, sums)
        told = zip(norms.tolist(), clipped.tolist(), strict=True)
        return [
            Added(Outcome.AGGREGATED, norm, clipped=was)
            if np.isfinite(norm)
            else Added(Outcome.NOT_FINITE, 0.0, clipped=False)
            for norm, was in told
        ]


def groups(waiting: Sequence[_Waiting], lanes: int) -> Iterator[Sequence[_Waiting]]:
    """Yield clients in groups of equal time, those with similar numbers of steps together."""
    by_time: dict[int, list[_Waiting]] = {}
    for one in waiting:
        by_time.setdefault(one.member.time, []).append(one)
    for _, alike in sorted(by_time.items()):
        alike.sort(key=lambda one: -len(one.member.batches))
        for first in range(0, len(alike), lanes):
            yield alike[first : first + lanes]


def _refusal(trained: Tensor) -> Outcome:
    """Return the reason to refuse a lane's parameters."""
    return Outcome.OUT_OF_RANGE if bool(trained.isfinite().all()) else Outcome.NOT_FINITE


def _result(member: Member, loss: float, clipped: int) -> LocalResult:
    return LocalResult(
        loss=float(loss),
        tokens=sum(batch.count for batch in member.batches),
        examples=sum(map(len, member.batches)),
        steps=len(member.batches),
        clipped_steps=clipped,
    )
