"""Trials that begin with the rounds of a shorter run of the same experiment."""

import shutil
from pathlib import Path

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from server.runs.folder import EXPERIMENT, MEASURED, RunFolder
from server.runs.settled import settled_as

_PARTIAL = ".partial"


def begin_with(shorter: Path, longer: Path, experiment: Experiment) -> None:
    """Copy a finished run to the folder of a longer one, which is then continued from it.

    The bits are those of a run that was longer from the beginning. If they would not be, because
    the learning rate or the noise depends on the number of rounds, nothing is copied; nor if the
    longer run has already begun.

    Args:
        shorter: The folder of the finished run.
        longer: The folder of the longer run.
        experiment: The longer run's experiment.
    """
    if (longer / EXPERIMENT).exists():
        return
    try:
        run = RunFolder(shorter)
        wanted = settled_as(experiment, run.experiment())
        run.check_free(wanted, overwrite=False, resume=True)
    except UserError:
        return
    partial = longer.with_name(longer.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(shorter, partial, ignore=shutil.ignore_patterns(MEASURED, ".lock"))
    shutil.rmtree(longer, ignore_errors=True)
    partial.rename(longer)
