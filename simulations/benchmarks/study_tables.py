"""Small tables of a study's finished runs, to publish: what its pages are drawn from, without runs.

``python -m simulations.benchmarks.study_tables OUT STUDY...`` reads the folders of studies and
writes ``OUT_runs.csv``, with a row for each run, and ``OUT_rounds.csv``, with a row for each
evaluated round of a setting and a column for each seed (``seed0``, ``seed1``, ...). Both have the
values of the axes by name, of the keys that results hang on most, and the planned number of rounds
(``rounds``), so that studies with the same axes can share a table; ``OUT_runs.csv`` also has the
rounds that were run (``rounds_run``) and what ended the run (``ended_by``). ``.differences`` and
``.curves`` draw figures from them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fedsi.errors import UserError
from fedsi.files import write_atomically
from simulations.studies.finished import read_study
from simulations.studies.results import TrialResult
from simulations.studies.study import STUDY, Study

KEYS = ("client.learning_rate", "server.learning_rate", "server.weight_decay")
"""Keys that every table has, whether the study's axes set them or not."""

FACTS = (
    "status",
    "parameters",
    "clients_trained",
    "clients_lost",
    "tokens_trained",
    "train_loss",
    "heldout_loss",
)
"""Fields of the summary that come before the metrics."""

COSTS = (
    "heldout_client_accuracy_p10",
    "heldout_client_accuracy_p50",
    "heldout_client_accuracy_p90",
    "clipped_steps_share",
    "upload_bytes",
    "train_seconds",
)
"""Fields that come after them; empty where a run has none."""

FORMAT = "%.6g"


def setting_of(result: TrialResult) -> dict[str, object]:
    """Return the values of a run's axes, of ``KEYS``, and its planned number of rounds."""
    keys = result.trial.experiment.flat()
    axes = {point.axis: point.value for point in result.trial.points}
    always = {key: keys[key] for key in KEYS}
    return {**axes, **always, "rounds": keys["server.rounds"]}


def run_row(result: TrialResult) -> dict[str, object]:
    """Return a run's row: its setting and seed, facts, metrics by part, and what it cost.

    The loss of all held-out clients is the summary's; those of validation and test clients, and all
    other metrics, are counted from the clients' own.
    """
    summary = result.summary.to_json()
    metrics = {
        f"{part}_{name}": result.metric(name, part)
        for part in ("validation", "test", "all")
        for name in ("loss", *result.task.curves)
        if (part, name) != ("all", "loss")
    }
    return {
        **setting_of(result),
        "seed": result.trial.seed,
        "rounds_run": summary["rounds"],
        "ended_by": summary["ended_by"],
        **{name: summary[name] for name in FACTS},
        **metrics,
        **{name: summary.get(name) for name in COSTS},
        "model_sha256": result.summary.model_sha256[:16],
    }


def rounds_table(results: Sequence[TrialResult]) -> pd.DataFrame:
    """Return a row for each evaluated round of a setting, with the loss of each seed.

    Args:
        results: Finished runs, no setting twice with one seed.
    """
    rows: dict[tuple[frozenset[tuple[str, object]], int], dict[str, object]] = {}
    for result in results:
        setting = setting_of(result)
        for record in result.records:
            if record.heldout is not None:
                place = frozenset(setting.items()), record.round
                row = rows.setdefault(place, {"round": record.round, **setting})
                row[f"seed{result.trial.seed}"] = record.heldout["loss"]
    table = pd.DataFrame([*rows.values()])
    seeds = [name for name in table if str(name).startswith("seed")]
    others = [name for name in table if name not in seeds]
    return table[[*others, *sorted(seeds, key=lambda name: int(str(name)[len("seed") :]))]]


def finished_runs(folders: Sequence[Path]) -> list[TrialResult]:
    """Return the finished runs of several studies.

    Raises:
        UserError: A study has none, or two have the same setting with one seed.
    """
    known: dict[tuple[frozenset[tuple[str, object]], int], Path] = {}
    results: list[TrialResult] = []
    for folder in folders:
        found, _ = read_study(Study.from_file(folder / STUDY), folder)
        for result in (*found.shorter, *found.results):
            place = (frozenset(setting_of(result).items()), result.trial.seed)
            if known.setdefault(place, folder) != folder:
                said = f"{folder} and {known[place]} both have a run of {result.name}"
                raise UserError(f"{said}. Name one of them, or add an axis that tells them apart.")
            results.append(result)
    return results


def main(words: Sequence[str]) -> None:
    """Read the studies and write both tables."""
    out, results = Path(words[0]), finished_runs([Path(word) for word in words[1:]])
    tables = {"runs": pd.DataFrame(map(run_row, results)), "rounds": rounds_table(results)}
    for name, table in tables.items():
        text = table.to_csv(index=False, float_format=FORMAT)
        write_atomically(out.with_name(f"{out.name}_{name}.csv"), text.encode())


if __name__ == "__main__":
    main(sys.argv[1:])
