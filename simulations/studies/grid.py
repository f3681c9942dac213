"""What studies share: a grid of architectures, values and seeds, and its results."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import pandas as pd

from server.rounds import RoundRecord
from server.runs.folder import RunFolder
from server.runs.summary import Summary

RUNS = "runs"
"""Subfolder with a run folder for each trial."""

ACCURACY = "accuracy_no_oov_no_eos"

_NESTED = {"versions", "provenance", "privacy"}
"""Parts of a summary that have no column in tables."""


@dataclass(frozen=True)
class Axis:
    """What a study varies besides the architecture and the seed."""

    column: str
    """Its name in tables."""
    label: str
    """Its short name, in names of folders."""


@dataclass(frozen=True)
class Trial:
    """One combination."""

    architecture: str
    axis: Axis
    value: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and its progress bar."""
        return f"{self.architecture}-{self.axis.label}{self.value:g}-seed{self.seed}"


class Named(Protocol):
    """A trial of any study."""

    @property
    def name(self) -> str:
        """Name of its folder and its progress bar."""
        ...


@dataclass(frozen=True)
class FinishedTrial:
    """A trial's finished run, in any study."""

    trial: Named
    summary: Summary

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.trial.name

    @property
    def diverged(self) -> bool:
        """Whether its loss left all bounds."""
        return self.summary.diverged

    @property
    def loss(self) -> float:
        """Final held-out loss, in nats per token; infinite if it diverged."""
        return float("inf") if self.diverged else self.summary.metric("loss")


@dataclass(frozen=True)
class TrialResult(FinishedTrial):
    """A trial's finished run, and its rounds."""

    trial: Trial
    records: list[RoundRecord]


@dataclass(frozen=True)
class Setting:
    """An architecture at a value, over all seeds that finished."""

    architecture: str
    value: float
    results: Sequence[TrialResult]

    @property
    def diverged(self) -> int:
        """Number of seeds that diverged."""
        return sum(result.diverged for result in self.results)

    @property
    def measured(self) -> bool:
        """Whether it has a loss: a seed finished, and none of those that did diverged."""
        return bool(self.results) and not self.diverged

    @property
    def loss(self) -> float:
        """Mean final held-out loss over the seeds that finished; infinite if not ``measured``."""
        return fmean(r.loss for r in self.results) if self.measured else float("inf")

    @property
    def half_range(self) -> float:
        """Half the distance between the best and the worst seed's loss."""
        return self.half_range_of("loss")

    def half_range_of(self, metric: str) -> float:
        """Half the distance between a metric's largest and least value; 0 if not ``measured``."""
        if not self.measured:
            return 0.0
        values = [result.summary.metric(metric) for result in self.results]
        return (max(values) - min(values)) / 2

    def mean(self, metric: str) -> float:
        """Mean of a held-out metric over the seeds that did not diverge; NaN if all did."""
        values = [r.summary.metric(metric) for r in self.results if not r.diverged]
        return fmean(values) if values else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the losses as values that JSON can hold."""
        return {
            "heldout_loss": self.loss if self.measured else None,
            "half_range": self.half_range if self.measured else None,
            "diverged": self.diverged,
            "seeds": len(self.results),
        }


@dataclass(frozen=True)
class Study:
    """All results of a grid; runs that did not finish are not among them."""

    architectures: Sequence[str]
    values: Sequence[float]
    results: Sequence[TrialResult]

    @property
    def summary(self) -> Summary:
        """The first run's summary, for what is the same in all."""
        return self.results[0].summary

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len({result.trial.seed for result in self.results})

    def setting(self, architecture: str, value: float) -> Setting:
        """Return an architecture's results at a value."""
        trials = [
            result
            for result in self.results
            if result.trial.architecture == architecture and result.trial.value == value
        ]
        return Setting(architecture, value, trials)

    def settings(self, architecture: str) -> list[Setting]:
        """Return an architecture's settings in the order of the values."""
        return [self.setting(architecture, value) for value in self.values]

    def table(self) -> pd.DataFrame:
        """Return one row for each run: the trial and its whole summary but for the versions."""
        rows = []
        for result in self.results:
            values = result.summary.to_json()
            summary = {k: v for k, v in values.items() if k not in _NESTED}
            privacy = values["privacy"] or {}
            rows.append(
                {
                    result.trial.axis.column: result.trial.value,
                    **summary,
                    **{f"privacy_{key}": value for key, value in privacy.items()},
                }
            )
        return pd.DataFrame(rows)


def grid(
    architectures: Sequence[str], axis: Axis, values: Sequence[float], seeds: int, first_seed: int
) -> Iterator[Trial]:
    """Yield every combination; seeds count up from the experiment's own."""
    for seed in range(first_seed, first_seed + seeds):
        for value in values:
            for architecture in architectures:
                yield Trial(architecture, axis, value, seed)


def read_results(trials: Sequence[Trial], folder: Path) -> list[TrialResult]:
    """Read the finished runs of a study's folder; trials without one are left out."""
    results = []
    for trial in trials:
        run = RunFolder(folder / RUNS / trial.name)
        summary = run.summary()
        if summary is not None:
            results.append(TrialResult(trial, summary, run.records()))
    return results
