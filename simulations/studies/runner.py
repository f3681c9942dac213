"""Execution of a study's experiments, several at a time, each in a separate process."""

import contextlib
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from server.rounds import RoundRecord
from server.runs.folder import EXPERIMENT, RunFolder
from simulations.engines.processes import own_command, single_threaded_environment
from simulations.studies.measured import is_measured
from simulations.studies.trial import GRACE_SECONDS

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
    folder: RunFolder
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def close(self) -> None:
        """Release the resources of a finished process."""
        self.errors.close()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with code {self.process.returncode}"


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
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, experiment = waiting.pop(0)
                run = RunFolder(folder / name)
                if not fresh and is_finished(run, experiment, lengths):
                    on_records(name, run.records())
                else:
                    asked = {"experiment": experiment.to_toml(), "lengths": list(lengths)}
                    mode = "resume" if _holds(run, experiment) and not fresh else "new"
                    running.append(_start(name, run, cache, mode, json.dumps(asked)))
            time.sleep(POLL_SECONDS)
            for trial in running:
                _report(trial, on_records)
            for trial in [one for one in running if one.process.poll() is not None]:
                running.remove(trial)
                if trial.process.returncode:
                    failures[trial.name] = trial.last_words()
                trial.close()
    finally:
        _stop(running)
    return failures


def check_same(trials: Mapping[str, Experiment], folder: Path, corpus_sha256: str) -> None:
    """Refuse to continue a study whose runs are of other experiments or of another corpus.

    Raises:
        UserError: A trial's folder holds such a run.
    """
    for name, experiment in trials.items():
        run = RunFolder(folder / name)
        if not (run.path / EXPERIMENT).exists():
            continue
        summary = run.summary()
        same_corpus = summary is None or summary.corpus_sha256 == corpus_sha256
        if not experiment.continues(run.experiment()) or not same_corpus:
            raise UserError(
                f"{run.path} holds a run of another experiment or corpus; replace all runs with "
                "--overwrite, or name another folder with --out"
            )


def is_finished(run: RunFolder, experiment: Experiment, lengths: Sequence[int] = ()) -> bool:
    """Whether a folder holds this experiment's finished run, evaluated client by client."""
    summary = run.summary() if _holds(run, experiment) else None
    if summary is None:
        return False
    return summary.diverged or is_measured(run.path, summary.model_sha256, lengths)


def _holds(run: RunFolder, experiment: Experiment) -> bool:
    try:
        return experiment.continues(run.experiment())
    except UserError:
        return False


def _start(name: str, run: RunFolder, cache: Path, mode: str, line: str) -> _Running:
    errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
    process = subprocess.Popen(
        own_command("simulations.studies.trial", run.path, cache, mode),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
        env=single_threaded_environment(),
    )
    if process.stdin:
        with contextlib.suppress(BrokenPipeError):
            # It stays open: the other process sees it close when this one ends, however it ends.
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
    return _Running(name, run, process, errors)


def _report(trial: _Running, on_records: OnRecords) -> None:
    with contextlib.suppress(UserError):  # the folder does not exist yet, or a row is being written
        on_records(trial.name, trial.folder.records())


def _stop(running: list[_Running]) -> None:
    for trial in running:
        trial.process.send_signal(signal.SIGTERM)  # a shell may make processes ignore SIGINT
    for trial in running:
        try:
            trial.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            trial.process.kill()
            trial.process.wait()
        trial.close()
