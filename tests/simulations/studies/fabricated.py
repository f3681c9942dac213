"""Results of studies that never ran, for tests of reports."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from fedsi.checksums import sealed
from fedsi.data.baselines import NAMES, Baselines
from fedsi.tasks.table import task_of
from server.round_record import RoundRecord
from server.runs.folder import MEASURED, RunFolder
from simulations.studies.measured import Measured
from simulations.studies.results import RUNS, StudyResult, TrialResult
from simulations.studies.study import Study, Trial
from tests.summaries import summary_of

ARMS = {"key": "model.architecture", "values": ["cifg", "si_cifg"], "label": ""}
RATES = {"key": "client.learning_rate", "values": [0.3, 1.0, 3.0], "label": "lr"}
"""Axes of two cells and of three rates."""

CLIENTS = 40
TOKENS = 100.0
UNIGRAM, BIGRAM, TRIGRAM = 6.0, 5.4, 5.3


def result(
    trial: Trial,
    loss: float | None,
    *,
    accuracy: float = 0.1,
    validation: float | None = None,
    unigram: float = UNIGRAM,
    lengths: Mapping[int, float] | None = None,
    **summary: Any,
) -> TrialResult:
    """Return the result of a trial.

    Args:
        trial: The trial.
        loss: Loss of the test clients; None for a run that diverged.
        accuracy: Accuracy of all clients.
        validation: Loss of the validation clients, if it differs.
        unigram: Loss of the unigram model on the run's targets.
        lengths: Losses at sequence lengths.
        summary: Other fields of its summary.
    """
    # Seeds that end with the same model are one run.
    summary = {"model_sha256": sha256(trial.name.encode()).hexdigest(), **summary}
    columns = task_of(trial.experiment).columns
    if "unigram_loss" not in columns:
        summary["unigram_loss"] = None
    facts = summary_of(loss, accuracy, CLIENTS, seed=trial.seed, **summary)
    records = [
        RoundRecord(n, 5.0, 1, 0, 0, 0, 1, 2.0, heldout={"loss": one})
        for n, one in ((1, 6.5), (2, 99.0 if loss is None else loss))
    ]
    if loss is None:
        return TrialResult(trial, facts, records, None)
    test = np.arange(CLIENTS) % 2 == 1
    rows = np.zeros((CLIENTS, len(columns)))
    by_client = np.where(test, loss, loss if validation is None else validation)
    # Clients differ much from each other, equally in every run: pairing removes the difference.
    spread = np.tile([1.0, 1.0, -1.0, -1.0], CLIENTS // 4)
    told = {
        "examples": 10.0,
        "tokens": TOKENS,
        "loss": TOKENS * (by_client + spread),
        "unigram_loss": TOKENS * unigram,
        "tokens_no_oov_no_eos": TOKENS,
        "hits_no_oov_no_eos": TOKENS * accuracy,
        "hits_at_3": 2 * TOKENS * accuracy,
        "found_at_1": TOKENS * accuracy,
        "right": TOKENS,
    }
    for name, value in told.items():
        if name not in columns:
            continue
        rows[:, columns.index(name)] = value
    scores = {n: {"loss": one, "beyond": {"loss": one}} for n, one in (lengths or {}).items()}
    return TrialResult(trial, facts, records, Measured(np.arange(CLIENTS), test, rows, scores))


def write_run(one: TrialResult, folder: Path) -> Path:
    """Write a run to a study's folder, without its rounds, and return its own folder."""
    run = RunFolder(folder / RUNS / one.name)
    run.claim(one.trial.experiment, overwrite=True, resume=False)
    run.finish(one.summary, b"")
    if one.measured is not None:
        values = {
            "model_sha256": one.summary.model_sha256,
            "columns": list(one.task.columns),
            "clients": one.measured.clients.tolist(),
            "test": one.measured.test.tolist(),
            "rows": one.measured.rows.tolist(),
            "lengths": {},
        }
        (run.path / MEASURED).write_bytes(sealed(values))
    return run.path


def study_result(
    study: Study, losses: Mapping[Any, Sequence[float | None]], **facts: Any
) -> StudyResult:
    """Return a study's result.

    Args:
        study: The study.
        losses: Losses of the seeds that finished, by combination of values.
        facts: Fields of every summary, except ``setting_levels``, which goes to the result.
    """
    levels = facts.pop("setting_levels", {})
    results = []
    for points in study.combinations():
        for seed, loss in enumerate(losses.get(tuple(p.value for p in points), ())):
            results.append(result(study.trial(points, seed), loss, **facts))
    return StudyResult(study, results, ngrams(), levels)


def ngrams() -> Baselines:
    """Return n-gram models of round losses, on the same clients."""
    rows = {
        name: np.tile([TOKENS, TOKENS * loss, TOKENS, 5.0, 6.0], (CLIENTS, 1))
        for name, loss in zip(NAMES, (UNIGRAM, BIGRAM, TRIGRAM), strict=True)
    }
    return Baselines(np.arange(CLIENTS), rows)
