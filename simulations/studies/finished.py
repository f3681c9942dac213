"""The results of a study from what its folder holds, without its corpus and without a run."""

from collections.abc import Sequence
from pathlib import Path

from fedsi.errors import UserError
from server.runs.folder import SUMMARY
from simulations.kept_results import kept_baselines, kept_suggested
from simulations.safe_text import typed
from simulations.studies.halving import asked_trials, last_stages, shorter_runs
from simulations.studies.results import (
    RUNS,
    StudyResult,
    TrialResult,
    read_results,
    trial_summary,
)
from simulations.studies.run import levels_of
from simulations.studies.study import Study

NOT_FINISHED = "it has no finished run"
NOT_EVALUATED = (
    "it is trained, and not yet evaluated client by client; evaluate it with: fedsi study"
)


def read_study(study: Study, folder: Path) -> tuple[StudyResult, dict[str, str]]:
    """Return the results of a study's finished trials, and why each of the others has none.

    The others are those that its design asks for; with ``halving``, as far as its runs tell.

    Args:
        study: The study.
        folder: Its folder.

    Raises:
        UserError: No trial has finished, a file is damaged, or trials that share a corpus were
            trained on different ones.
    """
    stages = _stages(study, folder)
    results = last_stages(stages)
    if not results:
        raise UserError(
            f"the study in {folder} has no finished run yet that is evaluated client by client; "
            f"continue it with: fedsi study {typed(folder)}"
        )
    _check_same_texts([result for each in stages for result in each], folder / RUNS)
    levels = levels_of(study, results[0].summary.training_clients)
    kept = kept_baselines(folder), levels, kept_suggested(folder)
    whole = StudyResult(study, results, *kept, shorter_runs(stages, results))
    return whole, _missing(study, stages, folder)


def _check_same_texts(results: Sequence[TrialResult], runs: Path) -> None:
    """Refuse runs of equal task and data settings on different texts, which are not comparable.

    Raises:
        UserError: There are such runs.
    """
    known: dict[object, TrialResult] = {}
    for one in results:
        experiment = one.trial.experiment
        first = known.setdefault((experiment.task, experiment.data), one)
        hashes = [each.summary.corpus_sha256 for each in (first, one)]
        if hashes[0] != hashes[1]:
            raise UserError(
                f"{runs / first.name} and {runs / one.name} were trained on different texts "
                f"(corpus SHA-256 {hashes[0][:16]} and {hashes[1][:16]}), where the study has one "
                "corpus; remove the folders of the runs on the wrong one, and run them again with: "
                f"fedsi study {typed(runs.parent)}"
            )


def _missing(study: Study, stages: Sequence[Sequence[TrialResult]], folder: Path) -> dict[str, str]:
    """Return why each trial without a result has none."""
    asked = asked_trials(study, stages) if study.design == "halving" else study.trials()
    known = {result.name for results in stages for result in results}
    return {
        trial.name: NOT_FINISHED
        if trial_summary(trial, folder) is None
        else f"{NOT_EVALUATED} {typed(folder)}"
        for trial in asked
        if trial.name not in known
    }


def has_finished_runs(folder: Path) -> bool:
    """Whether a study's folder has a finished run."""
    return any((folder / RUNS).glob(f"*/{SUMMARY}"))


def _stages(study: Study, folder: Path) -> list[list[TrialResult]]:
    """Return the results of each stage; only ``halving`` has several."""
    if study.design != "halving":
        return [read_results(study.trials(), folder)]
    combinations = study.combinations()
    return [read_results(study.stage_trials(s, combinations), folder) for s in study.stages()]
