"""Execution of a study's experiments, several at a time, each in a separate process."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fedsi.data.population import Population
from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from server.round_record import RoundRecord
from server.runs.extension import extends
from server.runs.folder import EXPERIMENT, RunFolder
from server.runs.rounds_follower import RoundsFollower
from server.runs.settled import settled_as
from server.warm_start import with_hash
from simulations.studies.measured import is_measured
from simulations.studies.trial_processes import TrialProcess, TrialProcesses

POLL_SECONDS = 0.2
OnRecords = Callable[[str, Sequence[RoundRecord]], None]
"""Called with a trial's name and all its rounds so far."""


class TrialError(UnfinishedError):
    """Experiments of a study could not be run; the others are not affected.

    Args:
        failures: The reason of each trial.
    """

    def __init__(self, failures: Mapping[str, str]) -> None:
        names: dict[str, list[str]] = {}
        for name, why in failures.items():
            names.setdefault(why, []).append(name)
        reasons = "; ".join(f"{', '.join(those)}: {why}" for why, those in names.items())
        super().__init__(f"not finished: {reasons}")


@dataclass
class _Running:
    name: str
    rounds: RoundsFollower
    process: TrialProcess


def run_trials(
    trials: Mapping[str, Experiment],
    folder: Path,
    cache: Path,
    jobs: int,
    *,
    fresh: bool,
    on_records: OnRecords,
    lengths: Sequence[int] = (),
) -> dict[str, str]:
    """Run unfinished trials; interrupted ones keep a checkpoint.

    Args:
        trials: Experiments by name.
        folder: Parent folder of the trials' folders.
        cache: Folder for corpora and populations.
        jobs: Experiments that run at the same time.
        fresh: Restart every trial, whatever its folder holds.
        on_records: Called when rounds end.
        lengths: Sequence lengths at which the models are evaluated in addition.

    Returns:
        The reason of each trial that could not be run; all others have been run.
    """
    waiting = list(trials.items())
    running: list[_Running] = []
    failures: dict[str, str] = {}
    with TrialProcesses() as processes:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, experiment = waiting.pop(0)
                run = RunFolder(folder / name)
                if not fresh and is_finished(run, experiment, lengths):
                    on_records(name, run.records())
                else:
                    asked = {"experiment": experiment.to_toml(), "lengths": list(lengths)}
                    mode = "resume" if _goes_on(run, experiment) and not fresh else "new"
                    running.append(_start(processes, name, run, cache, mode, json.dumps(asked)))
            if running:
                processes.wait(POLL_SECONDS)
            for trial in running:
                _report(trial, on_records)
            for trial in [one for one in running if one.process.returncode is not None]:
                running.remove(trial)
                if trial.process.returncode:
                    failures[trial.name] = trial.process.last_words()
                trial.process.close()
    return failures


def check_same(
    trials: Mapping[str, Experiment],
    folder: Path,
    population_of: Callable[[Experiment], Population],
) -> None:
    """Refuse to continue a study whose runs are of other experiments, corpora or vocabularies.

    Args:
        trials: Experiments by name.
        folder: Parent folder of the trials' folders.
        population_of: Returns the population of a trial, which may be one of its own.

    Raises:
        UserError: A trial's folder holds such a run, or one with other initial weights.
    """
    for name, experiment in trials.items():
        run = RunFolder(folder / name)
        if not (run.path / EXPERIMENT).exists():
            continue
        with_hash(settled_as(experiment, run.experiment()))  # refuses weights that have changed
        if not _goes_on(run, experiment) or not _has_corpus(run, population_of(experiment)):
            raise UserError(
                f"{run.path} holds a run of another experiment or corpus; replace all runs with "
                "--overwrite, or name another folder with --out"
            )


def _has_corpus(run: RunFolder, population: Population) -> bool:
    """Whether a run is unfinished or of this population's corpus.

    Raises:
        UserError: It is of another vocabulary.
    """
    summary = run.summary()
    if summary is None:
        return True
    words = population.vocabulary().file_text().encode("utf-8", "surrogatepass")
    if summary.vocabulary_sha256 not in (None, sha256(words).hexdigest()):
        raise UserError(
            f"{run.path} holds a run with another vocabulary: data.vocabulary names the same file, "
            "and its words have changed; restore it, replace all runs with --overwrite, or name "
            "another folder with --out"
        )
    return summary.corpus_sha256 == population.description.corpus_sha256


def is_finished(run: RunFolder, experiment: Experiment, lengths: Sequence[int] = ()) -> bool:
    """Whether a folder holds this experiment's finished run, evaluated client by client."""
    summary = run.summary() if _holds(run, experiment) else None
    if summary is None:
        return False
    return summary.diverged or is_measured(run.path, summary.model_sha256, lengths)


def _holds(run: RunFolder, experiment: Experiment) -> bool:
    try:
        begun = run.experiment()
    except UserError:
        return False
    return settled_as(experiment, begun).continues(begun)


def _goes_on(run: RunFolder, experiment: Experiment) -> bool:
    """Whether a folder holds a run of this experiment, or of one with fewer rounds."""
    if _holds(run, experiment):
        return True
    if not (run.path / EXPERIMENT).exists():
        return False
    begun = run.experiment()
    return extends(begun, settled_as(experiment, begun))


def _start(
    processes: TrialProcesses, name: str, run: RunFolder, cache: Path, mode: str, line: str
) -> _Running:
    return _Running(name, run.follower(), processes.start([run.path, cache, mode], line))


def _report(trial: _Running, on_records: OnRecords) -> None:
    with contextlib.suppress(UserError):  # the file does not exist yet, or is of another task
        on_records(trial.name, trial.rounds.records())
