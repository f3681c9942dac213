"""Results of a study's trials: settings over seeds, and the chosen setting of each arm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedsi.data.baselines import Baselines
from fedsi.messages import evaluated
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Counts, Task
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from server.runs.settled import settled_as
from server.runs.summary import Summary, to_json
from simulations.studies.measured import Measured, read_measured
from simulations.studies.privacy_levels import Level
from simulations.studies.selection import StudyPrivacy, study_privacy
from simulations.studies.study import Combination, Study, Trial

RUNS = "runs"
"""Subfolder with a run folder for each trial."""

HeldoutPart = Literal["validation", "test", "all"]
"""Held-out clients used for choosing, for reporting, or both together."""


@dataclass(frozen=True)
class GridPoint:
    """An arm at a level."""

    level: Combination
    arm: Combination


@dataclass(frozen=True)
class TrialResult:
    """A trial's finished run, which is evaluated or diverged."""

    trial: Trial
    summary: Summary
    records: Sequence[RoundRecord]
    measured: Measured | None
    """The model's counts on each held-out client; None if the run diverged."""

    @property
    def name(self) -> str:
        """Name of the trial's folder."""
        return self.trial.name

    @property
    def task(self) -> Task:
        """The task that was learned."""
        return task_of(self.trial.experiment)

    @property
    def diverged(self) -> bool:
        """Whether the run diverged."""
        return self.summary.diverged

    def rows(self, part: HeldoutPart) -> Counts:
        """Return the counts of the clients of a part, ``[clients, columns of the task]``."""
        if self.measured is None:
            return np.zeros((0, len(self.task.columns)))
        return self.measured.rows[kept_clients(self.measured.test, part)]

    def metric(self, name: str, part: HeldoutPart) -> float:
        """Return a metric of the task on a part; a loss is infinite if the run diverged."""
        if self.measured is None:
            return float("inf") if name == "loss" else float("nan")
        rows = self.rows(part)
        return self.task.metrics(rows[evaluated(rows)])[name]


@dataclass(frozen=True)
class Setting:
    """One combination of values, over all seeds that finished."""

    points: Combination
    results: Sequence[TrialResult]

    @property
    def seeds(self) -> frozenset[int]:
        """The seeds of its results."""
        return frozenset(result.trial.seed for result in self.results)

    @property
    def diverged(self) -> int:
        """Number of seeds that diverged."""
        return sum(result.diverged for result in self.results)

    @property
    def measured(self) -> bool:
        """Whether it has a loss: at least one seed finished, and none diverged."""
        return bool(self.results) and not self.diverged

    def values(self, metric: str, part: HeldoutPart) -> list[float]:
        """Return a metric of each seed."""
        return [result.metric(metric, part) for result in self.results]

    def mean(self, metric: str, part: HeldoutPart) -> float:
        """Return the mean of a metric; a loss is infinite if not ``measured``, others NaN."""
        if not self.measured:
            return float("inf") if metric == "loss" else float("nan")
        return fmean(self.values(metric, part))

    def at(self, seeds: frozenset[int]) -> "Setting":
        """Return it with the results of some seeds alone."""
        return replace(self, results=[one for one in self.results if one.trial.seed in seeds])


@dataclass(frozen=True)
class Ranking:
    """The settings that one is chosen among, and those that had to be left out."""

    ranked: Sequence[Setting]
    """Those that can be chosen, the best first."""
    seeds: frozenset[int]
    """The seeds over which they were ranked."""
    every: frozenset[int]
    """The seeds of all settings."""
    left_out: Sequence[Setting]
    """Those without a diverged run that were not ranked, because runs of them are missing."""


@dataclass(frozen=True)
class StudyResult:
    """All results of a study, without runs that are unfinished or not yet evaluated.

    With halving, a combination has the results of its last and longest runs.
    """

    study: Study
    results: Sequence[TrialResult]
    """At least one."""
    baselines: Baselines | None = None
    """Counts of n-gram models on the same clients; None if the task has none, or they are lost."""
    setting_levels: Mapping[Combination, Level] = field(default_factory=dict)
    """The privacy cost of each combination; empty if levels are not of noise."""
    suggested: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The suggested learning rate of each seed, by ``place_name``; empty without ``suggest``."""
    shorter: Sequence[TrialResult] = ()
    """With halving, the shorter runs of combinations that went on."""

    @property
    def summary(self) -> Summary:
        """The first run's summary, for values common to all."""
        return self.results[0].summary

    @property
    def task(self) -> Task:
        """The task that was learned."""
        return self.results[0].task

    @cached_property
    def of_equal_rounds(self) -> "StudyResult":
        """Results in which every setting ran for as many rounds: with halving, the first stage's.

        Settings are held against each other over a key on these only, because those that were
        stopped early would look worse than they are. Without a result of the first stage, all
        results as they are.
        """
        if self.study.design != "halving":
            return self
        return self.of_stage(self.study.first_rounds) or self

    def of_stage(self, rounds: int | None) -> "StudyResult | None":
        """Return the results of the runs of so many rounds; None if there are none."""
        every = (*self.shorter, *self.results)
        found = [result for result in every if result.trial.rounds == rounds]
        return replace(self, results=found, shorter=()) if found else None

    @cached_property
    def privacy(self) -> StudyPrivacy | None:
        """The privacy cost of all runs together; None without private runs."""
        experiments = [trial.experiment for trial in self._runs()]
        return study_privacy(experiments, self.summary.training_clients)

    @cached_property
    def privacy_levels(self) -> dict[GridPoint, Level]:
        """The privacy cost of each arm at each level, by its chosen setting.

        If none is chosen, that of its first one. Empty if levels are not of noise.
        """
        found = {}
        for place in self.places:
            setting = self.chosen(place) or self.settings(place)[0]
            if setting.points in self.setting_levels:
                found[place] = self.setting_levels[setting.points]
        return found

    def _runs(self) -> list[Trial]:
        """Return the trial of every run, also of those that ``halving`` made on the way."""
        if self.study.design != "halving":
            return self.study.trials()
        stages = self.study.stages()
        last = {one.trial.points: one.trial.rounds for one in self.results}
        lengths = [stage.rounds for stage in stages]
        return [
            self.study.trial(points, seed, stage.rounds)
            for points, rounds in last.items()
            for stage in stages[: lengths.index(rounds) + 1]
            for seed in stage.seeds
        ]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of which differences are given: the loss, and the shares in the task's curves."""
        return ("loss", *self.task.curves)

    @property
    def seeds(self) -> int:
        """Number of seeds with a run of all rounds; or with any, if there is none."""
        whole = [result for result in self.results if result.trial.rounds is None]
        return len({result.trial.seed for result in whole or self.results})

    @property
    def part(self) -> HeldoutPart:
        """The clients that results are reported on: all if nothing was chosen on any of them."""
        return "test" if self.chooses else "all"

    @property
    def choosing(self) -> HeldoutPart:
        """The clients that settings are chosen on."""
        return "validation" if self.chooses else "all"

    @cached_property
    def chooses(self) -> bool:
        """Whether an arm has more than one setting to choose from."""
        return len({self.study.part(points, "tune") for points in self.combinations}) > 1

    @cached_property
    def combinations(self) -> list[Combination]:
        """All combinations of values, in the study's order."""
        return self.study.combinations()

    @cached_property
    def levels(self) -> list[Combination]:
        """Combinations of the axes that are neither compared nor tuned; one may be empty."""
        return list(dict.fromkeys(self.study.part(c, "level") for c in self.combinations))

    @cached_property
    def arms(self) -> list[Combination]:
        """Combinations of the compared axes; one may be empty."""
        return list(dict.fromkeys(self.study.part(c, "compare") for c in self.combinations))

    @property
    def places(self) -> list[GridPoint]:
        """Every arm at every level."""
        return [GridPoint(level, arm) for level in self.levels for arm in self.arms]

    def setting(self, points: Combination) -> Setting:
        """Return the results of a combination."""
        return Setting(points, [r for r in self.results if r.trial.points == points])

    def settings(self, place: GridPoint) -> list[Setting]:
        """Return all settings of a place, in the study's order."""
        return [
            self.setting(points)
            for points in self.combinations
            if self.study.part(points, "level") == place.level
            and self.study.part(points, "compare") == place.arm
        ]

    def chosen(self, place: GridPoint) -> Setting | None:
        """Return the best setting on validation clients; None if none can be chosen."""
        return next(iter(self.choice(place).ranked), None)

    def choice(self, place: GridPoint) -> Ranking:
        """Return the choice among a place's settings.

        A single setting needs no validation clients. Settings that ``halving`` stopped early are
        not chosen.
        """
        return self.choice_among([s for s in self.settings(place) if self.ran_to_the_end(s)])

    def choice_among(self, settings: Sequence[Setting]) -> Ranking:
        """Return the choice among settings that ran for as many rounds.

        Seeds may differ more than settings do, so means over different seeds are not held against
        each other: the settings are ranked that have a loss and a run of every seed that any has.
        If there are none, all that have a loss are ranked over the seeds that these have in common.
        """
        stable = [setting for setting in settings if setting.measured]
        every = frozenset[int]().union(*(setting.seeds for setting in settings))
        whole = [setting for setting in stable if setting.seeds == every]
        seeds = every if whole or not stable else every.intersection(*(s.seeds for s in stable))
        kept = whole or [setting for setting in stable if seeds]
        points = [setting.points for setting in kept]
        return Ranking(
            sorted(kept, key=lambda setting: self.cost(setting.at(seeds))),
            seeds,
            every,
            [s for s in settings if every and not s.diverged and s.points not in points],
        )

    def cost(self, setting: Setting) -> float:
        """Return how bad a setting is on the clients that settings are chosen on.

        It is the mean of the task's deciding metric, negative if higher is better; infinite without
        a loss.
        """
        if not setting.measured:
            return math.inf
        value = setting.mean(self.task.deciding, self.choosing)
        return -value if self.task.rises(self.task.deciding) else value

    def all_seeds(self, place: GridPoint) -> list[TrialResult]:
        """Return the results of a place's chosen setting, or of its first if none can be chosen.

        Empty if no setting has run for all rounds.
        """
        whole = [s for s in self.settings(place) if s.results and self.ran_to_the_end(s)]
        setting = self.chosen(place) or next(iter(whole), None)
        return [] if setting is None else list(setting.results)

    def ran_to_the_end(self, setting: Setting) -> bool:
        """Whether a setting was run for all rounds."""
        return all(result.trial.rounds is None for result in setting.results)

    @property
    def parts(self) -> tuple[HeldoutPart, ...]:
        """Parts for choosing and for reporting; or all clients, if nothing was chosen."""
        return ("validation", "test") if self.chooses else ("all",)

    @cached_property
    def reported_clients(self) -> NDArray[np.bool_]:
        """Mask of the evaluated clients that results are reported on, ``[clients]``."""
        measured = next((r.measured for r in self.results if r.measured), None)
        if measured is None:
            count = 0 if self.baselines is None else len(self.baselines.clients)
            return np.ones(count, np.bool_)
        return kept_clients(measured.test, self.part)

    def baseline(self, name: str) -> float | None:
        """Return an n-gram model's loss on the reported clients, if there is one.

        Without counts by client it is the unigram model's loss on all evaluated clients, which
        every run of a task with such a model has in its summary.
        """
        if self.baselines is None:
            return self.summary.unigram_loss if name == "unigram" else None
        if self.baselines.ranks_labels:
            return None
        return self.baselines.loss(name, self.reported_clients)

    def baseline_accuracy(self, name: str) -> float | None:
        """Return an n-gram model's score, as of the task, on the reported clients."""
        if self.baselines is None:
            return None
        return self.baselines.accuracy(name, self.reported_clients)

    @property
    def target(self) -> float | None:
        """The loss up to which rounds are counted, on all evaluated clients."""
        if self.study.target is not None:
            return self.study.target
        ngrams = self.baselines is not None and not self.baselines.ranks_labels
        return self.baselines.loss("bigram") if self.baselines and ngrams else None

    def table(self) -> pd.DataFrame:
        """Return one row per run: its values, its metrics by part, and its whole summary."""
        return pd.DataFrame([self._row(result) for result in (*self.results, *self.shorter)])

    def _row(self, result: TrialResult) -> dict[str, Any]:
        nested = {"versions", "provenance", "privacy"}
        values = {point.axis: point.value for point in result.trial.points}
        by_part = {
            f"{part}_{metric}": result.metric(metric, part)
            for part in (self.parts)
            for metric in self.metrics
        }
        summary, privacy = result.summary.to_json(), result.summary.privacy
        claim = to_json(privacy) if privacy else {}
        return {
            **values,
            **{key: value for key, value in summary.items() if key not in nested},
            **by_part,
            **{f"privacy_{key}": value for key, value in claim.items()},
        }


def kept_clients(test: NDArray[np.bool_], part: HeldoutPart) -> NDArray[np.bool_]:
    """Return the mask of the clients of a part, ``[clients]``.

    Args:
        test: Mask of the test clients.
        part: The part.
    """
    return {"validation": ~test, "test": test, "all": np.ones_like(test)}[part]


def trial_summary(trial: Trial, folder: Path) -> Summary | None:
    """Return the summary of a trial's finished run in a study's folder; None if it has none."""
    run = RunFolder(folder / RUNS / trial.name)
    summary = run.summary()
    if summary is None:
        return None
    # A run that is about to be continued holds the summary of an experiment with fewer rounds.
    begun = run.experiment()
    return summary if settled_as(trial.experiment, begun).continues(begun) else None


def read_results(trials: Sequence[Trial], folder: Path) -> list[TrialResult]:
    """Read the finished runs of a study's folder.

    Trials without one are left out, and those whose run has not diverged and is not yet evaluated
    client by client.
    """
    results = []
    for trial in trials:
        summary = trial_summary(trial, folder)
        if summary is None:
            continue
        run = RunFolder(folder / RUNS / trial.name)
        measured = None if summary.diverged else read_measured(run.path, summary.model_sha256)
        if summary.diverged or measured is not None:
            results.append(TrialResult(trial, summary, run.records(), measured))
    return results
