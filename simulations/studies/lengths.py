"""Length generalisation: Transformers with each position encoding, evaluated beyond their training.

Every model is trained at the experiment's ``data.sequence_length`` and evaluated on the same
held-out sentences packed into longer and longer sequences, see ``fedsi.inference.lengths``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from fedsi.data.corpus import Progress, silent
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.files import write_atomically
from fedsi.models.table import architecture
from server.runs.folder import SCORES
from server.runs.summary import Summary
from simulations.evaluate import evaluate_lengths, open_heldout, score_json
from simulations.finished_run import FinishedRun, open_run
from simulations.studies.grid import RUNS, FinishedTrial


@dataclass(frozen=True)
class LengthTrial:
    """One training."""

    positions: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and its progress bar."""
        return f"{self.positions}-seed{self.seed}"


@dataclass(frozen=True)
class LengthResult(FinishedTrial):
    """A trial's finished run, and what its model scored."""

    trial: LengthTrial
    scores: Mapping[int, dict[str, Any]]
    """``score_json`` by length; lengths that the model cannot read are not there."""


@dataclass(frozen=True)
class LengthSetting:
    """An encoding at a length, over all seeds that did not diverge."""

    positions: str
    length: int
    losses: Sequence[float]
    """Empty if the models cannot read that length, or all of them diverged."""
    beyond: Sequence[float]
    """Losses at positions beyond those of training; empty where there are none."""

    def to_json(self) -> dict[str, Any]:
        """Return the means as values that JSON can hold."""
        return {
            "length": self.length,
            "loss": fmean(self.losses) if self.losses else None,
            "half_range": half_range(self.losses) if self.losses else None,
            "loss_beyond": fmean(self.beyond) if self.beyond else None,
        }


@dataclass(frozen=True)
class LengthStudy:
    """All results."""

    positions: Sequence[str]
    lengths: Sequence[int]
    """Ascending."""
    results: Sequence[LengthResult]
    experiment: Experiment

    @property
    def summary(self) -> Summary:
        """The first run's summary, for what is the same in all."""
        return self.results[0].summary

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len({result.trial.seed for result in self.results})

    @property
    def trained_length(self) -> int:
        """Positions of a sequence in training."""
        return self.experiment.data.sequence_length

    def setting(self, positions: str, length: int) -> LengthSetting:
        """Return an encoding's losses at a length."""
        scores = [
            result.scores[length]
            for result in self.results
            if result.trial.positions == positions
            and not result.diverged
            and length in result.scores
        ]
        parts = [score["beyond"] for score in scores if score["beyond"]]
        return LengthSetting(positions, length, _losses(scores), _losses(parts))

    def settings(self, positions: str) -> list[LengthSetting]:
        """Return an encoding's settings in the order of the lengths."""
        return [self.setting(positions, length) for length in self.lengths]

    def diverged(self, positions: str) -> int:
        """Return how many seeds diverged with an encoding."""
        return sum(r.diverged for r in self.results if r.trial.positions == positions)

    def table(self) -> pd.DataFrame:
        """Return one row for each run and length; a length that cannot be read is empty."""
        rows = []
        for result in self.results:
            for length in self.lengths:
                score = dict(result.scores.get(length, {}))
                beyond = score.pop("beyond", None) or {}
                rows.append(
                    {
                        "positions": result.trial.positions,
                        "seed": result.trial.seed,
                        "status": result.summary.status,
                        **score,
                        "sequence_length": length,
                        **{f"beyond_{key}": value for key, value in beyond.items()},
                        "model_sha256": result.summary.model_sha256,
                    }
                )
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """Return the result as values that JSON can hold."""
        return {
            "corpus": self.summary.corpus,
            "corpus_sha256": self.summary.corpus_sha256,
            "trained_length": self.trained_length,
            "seeds": self.seeds,
            "positions": {
                name: [setting.to_json() for setting in self.settings(name)]
                for name in self.positions
            },
            "runs": [
                {
                    "positions": result.trial.positions,
                    "lengths": list(result.scores.values()),
                    **result.summary.to_json(),
                }
                for result in self.results
            ],
        }


def _losses(scores: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the losses that are numbers."""
    return [score["loss"] for score in scores if score["loss"] is not None]


def half_range(values: Sequence[float]) -> float:
    """Return half the distance between the largest and the least."""
    return (max(values) - min(values)) / 2


def length_trials(positions: Sequence[str], seeds: int, first_seed: int) -> Iterator[LengthTrial]:
    """Yield every combination; seeds count up from the experiment's own."""
    for seed in range(first_seed, first_seed + seeds):
        for name in positions:
            yield LengthTrial(name, seed)


def experiment_of(base: Experiment, trial: LengthTrial) -> Experiment:
    """Return the base experiment with a trial's values.

    Raises:
        UserError: An encoding that is not there, or that the architecture cannot take.
    """
    if "positions" not in architecture(base.model.architecture).keys:
        raise UserError(
            "position encodings are parts of a Transformer, and this experiment has "
            f"model.architecture={base.model.architecture}; set model.architecture=transformer"
        )
    return base.updated({"model.positions": trial.positions, "seed": trial.seed})


def score_trials(
    trials: Sequence[LengthTrial],
    folder: Path,
    lengths: Sequence[int],
    cache: Path,
    progress: Progress,
) -> list[LengthResult]:
    """Score the finished runs of a study's folder; what was scored before is read.

    Raises:
        UserError: A run's files are damaged, or its corpus is another one now.
    """
    results = []
    for done, trial in enumerate(trials):
        progress("scoring models", done, len(trials))
        run = open_run(folder / RUNS / trial.name)
        results.append(LengthResult(trial, run.summary, _scores(run, lengths, cache)))
    progress("scoring models", len(trials), len(trials))
    return results


def _scores(run: FinishedRun, lengths: Sequence[int], cache: Path) -> dict[int, dict[str, Any]]:
    """Return the scores of the lengths that a run's model can read."""
    longest = run.trained.model.longest or math.inf
    readable = [length for length in lengths if length <= longest]
    if run.summary.diverged:
        return {}
    known = _read_scores(run)
    missing = [length for length in readable if length not in known]
    if missing:
        population = open_heldout(run, cache, silent)
        for score in evaluate_lengths(run, population, missing, silent):
            known[score.length] = score_json(score)
        content = {"model_sha256": run.summary.model_sha256, "scores": list(known.values())}
        write_atomically(run.path / SCORES, json.dumps(content, indent=1).encode())
    return {length: known[length] for length in readable}


def _read_scores(run: FinishedRun) -> dict[int, dict[str, Any]]:
    """Return what was scored before; nothing if that was another model, or is damaged."""
    try:
        content = json.loads((run.path / SCORES).read_text(encoding="utf-8"))
        if content["model_sha256"] != run.summary.model_sha256:
            return {}
        return {int(score["sequence_length"]): dict(score) for score in content["scores"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
