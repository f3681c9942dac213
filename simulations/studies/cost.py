"""The machine time that a study still needs, from a measurement of each kind of training in it."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fedsi.data.corpus import Progress
from fedsi.data.prepare import open_population, prepare_for
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations.simulation import simulate
from simulations.studies.results import RUNS
from simulations.studies.runner import is_finished
from simulations.studies.study import Combination, Stage, Study

ENOUGH_SECONDS = 2.0
"""A measurement times rounds until they have taken so long together."""
MOST_ROUNDS = 20
"""Most rounds that a measurement times."""
MEASURED_CLIENTS = 20
"""Most held-out clients that a measurement evaluates."""


@dataclass(frozen=True)
class Speed:
    """Seconds of one core for one kind of training."""

    per_round: float
    per_evaluated_client: float

    def seconds(self, experiment: Experiment, heldout_clients: int) -> float:
        """Return the seconds of a whole run, which evaluates its model once more at the end."""
        server = experiment.server
        evaluations = math.ceil(server.rounds / server.evaluate_every) + 2
        clients = evaluations * min(server.evaluation_clients, heldout_clients)
        return server.rounds * self.per_round + clients * self.per_evaluated_client


@dataclass(frozen=True)
class StageCost:
    """What one stage of a study still has to train."""

    stage: Stage
    rounds: int
    trials: int
    finished: int
    clients: int
    """How many times a client is trained in the unfinished trials."""
    seconds: float
    """Seconds of one core for the unfinished trials."""


def study_costs(
    study: Study, folder: Path | None, seconds_of: Callable[[Experiment], float]
) -> list[StageCost]:
    """Return the cost of each stage.

    Which combinations ``halving`` continues is not known in advance: the first ones that have not
    finished stand for them.

    Args:
        study: The study; its paths are absolute.
        folder: Its folder, in which some trials may have finished; None for a new one.
        seconds_of: Returns the seconds of one core for an experiment, such as a ``TimeEstimate``.
    """
    found = []
    for stage in study.stages():
        everything = _experiments(study, stage, study.combinations())
        done = {name for name, one in everything.items() if folder and _is_done(name, one, folder)}
        planned = _experiments(study, stage, _continued(study, stage))
        waiting = [one for name, one in planned.items() if name not in done]
        left = waiting[: max(0, len(planned) - len(done))]
        seconds = math.fsum(seconds_of(one) for one in left)
        clients = sum(one.server.rounds * one.server.cohort_size for one in left)
        rounds = max(one.server.rounds for one in planned.values())
        found.append(StageCost(stage, rounds, len(planned), len(done), clients, seconds))
    return found


class TimeEstimate:
    """Seconds of experiments, from one measurement of each kind of training.

    Args:
        cache: Folder for corpora and populations.
        progress: Called before each measurement.
    """

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._cache, self._progress = cache, progress
        self._speeds: dict[tuple[str, ...], Speed] = {}
        self._heldout: dict[tuple[str, ...], int] = {}

    def __call__(self, experiment: Experiment) -> float:
        """Return the seconds that one core takes for an experiment.

        Raises:
            UserError: The experiment cannot be run.
        """
        corpus, kind = _corpus(experiment), _kind(experiment)
        if corpus not in self._heldout:
            population = open_population(prepare_for(experiment, self._cache, self._progress))
            self._heldout[corpus] = population.description.heldout_clients
        if kind not in self._speeds:
            self._progress("measuring the speed", len(self._speeds), None)
            self._speeds[kind] = self._measured(experiment, self._heldout[corpus])
        return self._speeds[kind].seconds(experiment, self._heldout[corpus])

    def _measured(self, experiment: Experiment, heldout_clients: int) -> Speed:
        clients = min(experiment.server.evaluation_clients, MEASURED_CLIENTS, heldout_clients)
        shorter = experiment.updated(
            {"server.evaluation_clients": clients, "server.evaluate_every": 1}
        )
        clock = RoundClock()
        simulate(shorter, cache=self._cache, on_round=clock.stop)
        return clock.speed(clients, on_cpu=experiment.client.device == "cpu")


class RoundClock:
    """Times of a run's rounds; the first one loads code, and counts only if it is the only one."""

    def __init__(self) -> None:
        self._last = time.perf_counter(), time.process_time()
        self._rounds: list[tuple[RoundRecord, float]] = []
        """Each round, and the share of its time in which this process had the core."""

    def stop(self, _experiment: Experiment, record: RoundRecord) -> bool:
        """Take the time of a round; return whether enough rounds have been timed."""
        now = time.perf_counter(), time.process_time()
        busy = (now[1] - self._last[1]) / (now[0] - self._last[0])
        self._rounds.append((record, min(1.0, busy)))
        self._last = now
        warm = [r.train_seconds + r.evaluation_seconds for r, _ in self._rounds[1:]]
        return len(warm) == MOST_ROUNDS or math.fsum(warm) >= ENOUGH_SECONDS

    def speed(self, clients: int, *, on_cpu: bool) -> Speed:
        """Return the median round's speed.

        Args:
            clients: Held-out clients that each round evaluated.
            on_cpu: Leave out the time in which other processes had the core. With an accelerator
                it counts, because this process waits for that.
        """
        rounds = [(r, busy if on_cpu else 1.0) for r, busy in self._rounds[1:] or self._rounds]
        return Speed(
            median(busy * record.train_seconds for record, busy in rounds),
            median(busy * record.evaluation_seconds for record, busy in rounds) / clients,
        )


def _corpus(experiment: Experiment) -> tuple[str, ...]:
    return experiment.data.model_dump_json(), experiment.task.model_dump_json()


def _kind(experiment: Experiment) -> tuple[str, ...]:
    """Return what the speed of an experiment depends on: neither learning rates nor seeds."""
    e = experiment
    client = e.client.model_dump_json(exclude={"learning_rate"})
    server = (e.privacy.mechanism, str(e.server.cohort_size), e.server.sampling)
    sections = e.algorithm.model_dump_json(), e.model.model_dump_json(), client
    return (*_corpus(e), *sections, *server)


def _continued(study: Study, stage: Stage) -> list[Combination]:
    """Return the first combinations of each arm and level, as many as the stage has."""
    found: list[Combination] = []
    counts: dict[tuple[Combination, Combination], int] = {}
    for points in study.combinations():
        place = study.part(points, "level"), study.part(points, "compare")
        counts[place] = counts.get(place, 0) + 1
        if counts[place] <= stage.settings:
            found.append(points)
    return found


def _experiments(
    study: Study, stage: Stage, combinations: Iterable[Combination]
) -> dict[str, Experiment]:
    return {one.name: one.experiment for one in study.stage_trials(stage, combinations)}


def _is_done(name: str, experiment: Experiment, folder: Path) -> bool:
    """Whether a trial has finished; one that cannot be read has not."""
    try:
        return is_finished(RunFolder(folder / RUNS / name), experiment)
    except UserError:
        return False


def total(costs: Sequence[StageCost]) -> float:
    """Return the seconds of one core of all stages."""
    return math.fsum(one.seconds for one in costs)
