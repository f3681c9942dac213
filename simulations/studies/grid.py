"""What studies share: a grid of architectures, values and seeds, and its outcomes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import pandas as pd

from server.rounds import RoundRecord
from server.runs.folder import RunFolder

RUNS = "runs"
"""Subfolder with a run folder for each cell."""

ACCURACY = "heldout_accuracy_no_oov_no_eos"

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
class Cell:
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
    """A cell of any study."""

    @property
    def name(self) -> str:
        """Name of its folder and its progress bar."""
        ...


@dataclass(frozen=True)
class FinishedCell:
    """A cell's finished run, in any study."""

    cell: Named
    summary: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.cell.name

    @property
    def diverged(self) -> bool:
        """Whether its loss left all bounds."""
        return bool(self.summary["status"] == "diverged")

    @property
    def loss(self) -> float:
        """Final held-out loss, in nats per token; infinite if it diverged."""
        return float("inf") if self.diverged else float(self.summary["heldout_loss"])


@dataclass(frozen=True)
class Outcome(FinishedCell):
    """A cell's finished run, and its rounds."""

    cell: Cell
    records: list[RoundRecord]


@dataclass(frozen=True)
class Setting:
    """An architecture at a value, over all seeds that finished."""

    architecture: str
    value: float
    outcomes: Sequence[Outcome]

    @property
    def diverged(self) -> int:
        """Number of seeds that diverged."""
        return sum(outcome.diverged for outcome in self.outcomes)

    @property
    def measured(self) -> bool:
        """Whether it has a loss: a seed finished, and none of those that did diverged."""
        return bool(self.outcomes) and not self.diverged

    @property
    def loss(self) -> float:
        """Mean final held-out loss over the seeds that finished; infinite if not ``measured``."""
        return fmean(o.loss for o in self.outcomes) if self.measured else float("inf")

    @property
    def half_range(self) -> float:
        """Half the distance between the best and the worst seed's loss."""
        return self.half_range_of("heldout_loss")

    def half_range_of(self, metric: str) -> float:
        """Half the distance between a summary's largest and least value; 0 if not ``measured``."""
        if not self.measured:
            return 0.0
        values = [outcome.summary[metric] for outcome in self.outcomes]
        return float(max(values) - min(values)) / 2

    def mean(self, metric: str) -> float:
        """Mean of a summary's value over the seeds that did not diverge; NaN if all did."""
        values = [o.summary[metric] for o in self.outcomes if not o.diverged]
        return fmean(values) if values else float("nan")

    def to_json(self) -> dict[str, Any]:
        """Return the losses as values that JSON can hold."""
        return {
            "heldout_loss": self.loss if self.measured else None,
            "half_range": self.half_range if self.measured else None,
            "diverged": self.diverged,
            "seeds": len(self.outcomes),
        }


@dataclass(frozen=True)
class Study:
    """All outcomes of a grid; runs that did not finish are not among them."""

    architectures: Sequence[str]
    values: Sequence[float]
    outcomes: Sequence[Outcome]

    @property
    def summary(self) -> dict[str, Any]:
        """The first run's summary, for what is the same in all."""
        return self.outcomes[0].summary

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len({outcome.cell.seed for outcome in self.outcomes})

    def setting(self, architecture: str, value: float) -> Setting:
        """Return an architecture's outcomes at a value."""
        cells = [
            outcome
            for outcome in self.outcomes
            if outcome.cell.architecture == architecture and outcome.cell.value == value
        ]
        return Setting(architecture, value, cells)

    def settings(self, architecture: str) -> list[Setting]:
        """Return an architecture's settings in the order of the values."""
        return [self.setting(architecture, value) for value in self.values]

    def table(self) -> pd.DataFrame:
        """Return one row for each run: the cell and its whole summary but for the versions."""
        rows = []
        for outcome in self.outcomes:
            summary = {
                k: v
                for k, v in outcome.summary.items()
                if k not in {"versions", "provenance", "privacy"}
            }
            privacy = outcome.summary["privacy"] or {}
            rows.append(
                {
                    outcome.cell.axis.column: outcome.cell.value,
                    **summary,
                    **{f"privacy_{key}": value for key, value in privacy.items()},
                }
            )
        return pd.DataFrame(rows)


def grid(
    architectures: Sequence[str], axis: Axis, values: Sequence[float], seeds: int, first_seed: int
) -> Iterator[Cell]:
    """Yield every combination; seeds count up from the experiment's own."""
    for seed in range(first_seed, first_seed + seeds):
        for value in values:
            for architecture in architectures:
                yield Cell(architecture, axis, value, seed)


def read_outcomes(cells: Sequence[Cell], folder: Path) -> list[Outcome]:
    """Read the finished runs of a study's folder; cells without one are left out."""
    outcomes = []
    for cell in cells:
        run = RunFolder(folder / RUNS / cell.name)
        summary = run.summary()
        if summary is not None:
            outcomes.append(Outcome(cell, summary, run.records()))
    return outcomes
