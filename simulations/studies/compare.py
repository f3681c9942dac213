"""The comparison of architectures over client learning rates and seeds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from fedsi.experiment import Experiment
from server.rounds import RoundRecord
from server.run_folder import RunFolder

RUNS = "runs"
"""Subfolder with a run folder for each cell."""


@dataclass(frozen=True)
class Cell:
    """One combination."""

    architecture: str
    client_learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and its progress bar."""
        return f"{self.architecture}-lr{self.client_learning_rate:g}-seed{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """A cell's finished run."""

    cell: Cell
    summary: dict[str, Any]
    records: list[RoundRecord]

    @property
    def diverged(self) -> bool:
        """Whether its loss left all bounds."""
        return bool(self.summary["status"] == "diverged")

    @property
    def loss(self) -> float:
        """Final held-out loss, in nats per token; infinite if it diverged."""
        return float("inf") if self.diverged else float(self.summary["heldout_loss"])


@dataclass(frozen=True)
class Setting:
    """An architecture at a learning rate, over all seeds."""

    architecture: str
    client_learning_rate: float
    outcomes: Sequence[Outcome]

    @property
    def diverged(self) -> int:
        """Number of seeds that diverged."""
        return sum(outcome.diverged for outcome in self.outcomes)

    @property
    def loss(self) -> float:
        """Mean final held-out loss over the seeds; infinite if any of them diverged."""
        return fmean(outcome.loss for outcome in self.outcomes)

    @property
    def half_range(self) -> float:
        """Half the distance between the best and the worst seed."""
        losses = [outcome.loss for outcome in self.outcomes]
        return 0.0 if self.diverged else (max(losses) - min(losses)) / 2

    def mean(self, metric: str) -> float:
        """Mean of a summary's value over the seeds that did not diverge; NaN if all did."""
        values = [o.summary[metric] for o in self.outcomes if not o.diverged]
        return fmean(values) if values else float("nan")


@dataclass(frozen=True)
class Comparison:
    """All outcomes of a grid."""

    architectures: Sequence[str]
    learning_rates: Sequence[float]
    outcomes: Sequence[Outcome]

    def setting(self, architecture: str, learning_rate: float) -> Setting:
        """Return an architecture's outcomes at a learning rate."""
        cells = [
            outcome
            for outcome in self.outcomes
            if outcome.cell.architecture == architecture
            and outcome.cell.client_learning_rate == learning_rate
        ]
        return Setting(architecture, learning_rate, cells)

    def settings(self, architecture: str) -> list[Setting]:
        """Return an architecture's settings in the order of the learning rates."""
        return [self.setting(architecture, rate) for rate in self.learning_rates]

    def best(self, architecture: str) -> Setting | None:
        """Return the setting with the lowest mean loss; None if each had a seed that diverged."""
        best = min(self.settings(architecture), key=lambda setting: setting.loss)
        return None if best.diverged else best

    def table(self) -> pd.DataFrame:
        """Return one row for each run: the cell and its whole summary but for the versions."""
        rows = []
        for outcome in self.outcomes:
            summary = {k: v for k, v in outcome.summary.items() if k != "versions"}
            rows.append({"client_learning_rate": outcome.cell.client_learning_rate, **summary})
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold."""
        first = self.outcomes[0].summary
        return {
            "corpus": first["corpus"],
            "corpus_sha256": first["corpus_sha256"],
            "unigram_loss": first["unigram_loss"],
            "architectures": {name: self._to_json(name) for name in self.architectures},
            "runs": [
                {"client_learning_rate": o.cell.client_learning_rate, **o.summary}
                for o in self.outcomes
            ],
        }

    def _to_json(self, architecture: str) -> dict[str, Any]:
        best = self.best(architecture)
        return {
            "best_client_learning_rate": best.client_learning_rate if best else None,
            "heldout_loss": best.loss if best else None,
            "heldout_accuracy_no_oov_no_eos": (
                best.mean("heldout_accuracy_no_oov_no_eos") if best else None
            ),
            "by_client_learning_rate": {
                f"{setting.client_learning_rate:g}": {
                    "heldout_loss": None if setting.diverged else setting.loss,
                    "half_range": None if setting.diverged else setting.half_range,
                    "diverged": setting.diverged,
                    "seeds": len(setting.outcomes),
                }
                for setting in self.settings(architecture)
            },
        }


def grid(
    architectures: Sequence[str], learning_rates: Sequence[float], seeds: int, first_seed: int
) -> Iterator[Cell]:
    """Yield every combination; seeds count up from the experiment's own."""
    for seed in range(first_seed, first_seed + seeds):
        for rate in learning_rates:
            for architecture in architectures:
                yield Cell(architecture, rate, seed)


def experiment_of(base: Experiment, cell: Cell) -> Experiment:
    """Return the base experiment with a cell's values.

    Raises:
        UserError: An architecture or a learning rate that is not allowed.
    """
    return base.updated(
        {
            "model.architecture": cell.architecture,
            "client.learning_rate": cell.client_learning_rate,
            "seed": cell.seed,
        }
    )


def read_outcomes(cells: Sequence[Cell], folder: Path) -> list[Outcome]:
    """Read the finished runs of a study's folder; cells without one are left out."""
    outcomes = []
    for cell in cells:
        run = RunFolder(folder / RUNS / cell.name)
        summary = run.summary()
        if summary is not None:
            outcomes.append(Outcome(cell, summary, run.records()))
    return outcomes
