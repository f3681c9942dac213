"""A sink that logs a run's rounds as curves of a tracker, and continues them with the run."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from uuid import uuid4

from fedsi.errors import UserError
from fedsi.experiment import Experiment, Scalar
from fedsi.extras import check_installed
from fedsi.files import make_folder, write_atomically
from server.round_record import RoundRecord
from server.runs.summary import Summary
from simulations.tracking.sink import Ended, Started
from simulations.tracking.table import NO_STEP, TRACKERS, Curves, Tracked

TRACKING = "tracking"
"""Folder in that of a run or a study; each tracker has one in it."""
_FACTS = ("ended_by", "rounds", "parameters", "best_round", "best_heldout_loss", "model_sha256")
"""Fields of the summary that trackers get at the end."""


def curves_of(names: Sequence[str], folder: Path, group: str = "") -> "list[CurveSink]":
    """Return a sink for each tracker.

    Args:
        names: Names of ``TRACKERS``, or import paths.
        folder: The folder of the run or of the study.
        group: Name of the study; empty for a single run.

    Raises:
        UserError: A tracker is unknown, or named twice, or its package is not installed.
    """
    if len(set(names)) < len(names):
        raise UserError(f"--track names a tracker twice in {','.join(names)}; name it once")
    for name in names:
        tracker = TRACKERS[name]
        if tracker.package:
            check_installed(tracker.package, tracker.extra)
    return [CurveSink(name, folder / TRACKING / name.replace(":", "."), group) for name in names]


@dataclass
class CurveSink:
    """The curves of a run in a tracker.

    It notes beside them which round was the last, so that a resumed run continues its curves and
    logs no round twice: a round that is run again has the same values.

    Args:
        name: Name of the tracker.
        folder: The tracker's folder.
        group: Name of the study; empty for a single run.
    """

    name: str
    folder: Path
    group: str = ""

    def __post_init__(self) -> None:
        self._curves: Curves | None = None
        self._key, self._step, self._evaluated = "", NO_STEP, 0

    def start(self, run: Started) -> None:
        """Open the curves, and add rounds that they do not have yet."""
        if run.fresh:
            shutil.rmtree(self.folder, ignore_errors=True)
        make_folder(self.folder)
        self._state = self.folder / f"{run.name}.json"
        self._key, self._step = _read(self._state)
        settings = _settings(run.experiment)
        tracked = Tracked(run.name, self.group, self._key, self._step, settings)
        self._curves = TRACKERS[self.name].open(self.folder, tracked)
        for record in run.records:
            self.round(record)

    def round(self, record: RoundRecord) -> None:
        """Log a round, unless it is there."""
        if record.heldout:
            self._evaluated = record.round
        if self._curves is None or record.round <= self._step:
            return
        self._curves.log(record.round, values_of(record))
        self._note(record.round)

    def checkpoint(self, number: int) -> None:
        """Do nothing, because each round is on disk."""

    def end(self, ended: Ended) -> None:
        """Log the last metrics, if no round had them, and how the run ended."""
        if self._curves is None:
            return
        summary = ended.summary
        if summary and self._evaluated < summary.rounds:  # an observer ended it between two
            heldout = {f"heldout_{name}": value for name, value in summary.heldout.items()}
            self._curves.log(summary.rounds, finite(heldout))
        facts: dict[str, Scalar] = {"reason": ended.reason} if ended.reason else {}
        self._curves.end(ended.status, _facts(summary) if summary else facts)

    def close(self) -> None:
        """Close the curves."""
        if self._curves is not None:
            self._curves.close()

    def _note(self, step: int) -> None:
        self._step = step
        content = json.dumps({"key": self._key, "step": step})
        write_atomically(self._state, content.encode())


def values_of(record: RoundRecord) -> dict[str, float]:
    """Return the finite values of a round, named as in ``rounds.csv``."""
    own = {
        field.name: getattr(record, field.name)
        for field in fields(RoundRecord)
        if field.name not in {"round", "heldout", "ended"}
    }
    heldout = {f"heldout_{name}": value for name, value in (record.heldout or {}).items()}
    return finite({**own, **heldout})


def finite(values: dict[str, float | None]) -> dict[str, float]:
    """Return the values that are finite."""
    return {
        name: float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _facts(summary: Summary) -> dict[str, Scalar]:
    values = {name: getattr(summary, name) for name in _FACTS}
    return {name: value for name, value in values.items() if value is not None}


def _settings(experiment: Experiment) -> dict[str, Scalar]:
    return {
        key: str(value) if isinstance(value, dict) else value
        for key, value in experiment.flat().items()
    }


def _read(path: Path) -> tuple[str, int]:
    """Return a run's key and its last logged round; a new key and ``NO_STEP`` if there are none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["key"]), int(found["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return uuid4().hex, NO_STEP
