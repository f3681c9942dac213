"""The results of a study from what its folder holds, without its corpus and without a run."""

from pathlib import Path

from fedsi.errors import UserError
from server.runs.folder import SUMMARY
from simulations.kept_results import kept_baselines, kept_suggested
from simulations.safe_text import typed
from simulations.studies.halving import last_stages, shorter_runs
from simulations.studies.results import RUNS, StudyResult, TrialResult, read_results
from simulations.studies.run import levels_of
from simulations.studies.study import Study

NOT_FINISHED = "it has no finished run"


def read_study(study: Study, folder: Path) -> tuple[StudyResult, dict[str, str]]:
    """Return the results of a study's finished trials, and a reason for each of the others.

    Args:
        study: The study.
        folder: Its folder.

    Raises:
        UserError: No trial has finished, or a file is damaged.
    """
    stages = _stages(study, folder)
    results = last_stages(stages)
    if not results:
        raise UserError(
            f"the study in {folder} has no finished run yet; continue it with: fedsi study "
            f"{typed(folder)}"
        )
    known = {result.name for result in results}
    failures = (
        {}  # most of its trials were stopped early
        if study.design == "halving"
        else {t.name: NOT_FINISHED for t in study.trials() if t.name not in known}
    )
    levels = levels_of(study, results[0].summary.training_clients)
    kept = kept_baselines(folder), levels, kept_suggested(folder)
    return StudyResult(study, results, *kept, shorter_runs(stages, results)), failures


def has_finished_runs(folder: Path) -> bool:
    """Whether a study's folder has a finished run."""
    return any((folder / RUNS).glob(f"*/{SUMMARY}"))


def _stages(study: Study, folder: Path) -> list[list[TrialResult]]:
    """Return the results of each stage; only ``halving`` has several."""
    if study.design != "halving":
        return [read_results(study.trials(), folder)]
    combinations = study.combinations()
    return [read_results(study.stage_trials(s, combinations), folder) for s in study.stages()]
