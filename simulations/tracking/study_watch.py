"""Curves of a study's trials, read from their rows as the trials run."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsi.errors import UserError
from server.round_record import RoundRecord
from server.runs.folder import EXPERIMENT, RunFolder
from simulations.studies.results import RUNS
from simulations.tracking.curves import TRACKING, curves_of
from simulations.tracking.sink import FAILED, INTERRUPTED, Ended, Started
from simulations.tracking.watch import Guarded


class StudyWatch:
    """A context manager whose ``records`` passes trials' new rounds to trackers.

    A tracker that fails for one trial gets nothing more of the study.

    Args:
        trackers: Names of trackers.
        folder: The study's folder.
        group: Name of the study.
        fresh: Whether all trials are restarted.

    Raises:
        UserError: Same as ``curves_of``.
    """

    def __init__(self, trackers: Sequence[str], folder: Path, group: str, *, fresh: bool) -> None:
        curves_of(trackers, folder, group)  # refuses what cannot be used
        self._trackers, self._folder, self._group = list(trackers), folder, group
        old = (folder / RUNS).glob("*") if fresh else ()
        self._old = {run.name: _written_at(run) for run in old}
        self._fresh = fresh
        self._open: dict[str, dict[str, Guarded]] = {}
        self._seen: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._fresh and self._trackers:
            shutil.rmtree(self._folder / TRACKING, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        unfinished = Ended(INTERRUPTED if kind is KeyboardInterrupt else FAILED)
        for name in list(self._open):
            self._end(name, self._ended(name) or unfinished)

    def records(self, name: str, records: Sequence[RoundRecord]) -> None:
        """Pass on the new ones of a trial's rounds, and its summary as soon as it has one."""
        if not self._trackers or not records:
            return
        if name in self._old and self._old[name] == _written_at(self._folder / RUNS / name):
            return  # the rows of a run that is about to be replaced
        seen = self._seen.get(name, 0)
        if len(records) > seen:
            self._add(name, records[seen:])
            self._seen[name] = len(records)
        if name in self._open and records[-1].ended and (ended := self._ended(name)):
            self._end(name, ended)

    def _add(self, name: str, records: Sequence[RoundRecord]) -> None:
        sinks = self._open.get(name) or self._start(name)
        for record in records:
            for sink in sinks.values():
                sink.round(record)
        self._trackers = [t for t in self._trackers if t not in sinks or not sinks[t].failed]

    def _start(self, name: str) -> dict[str, Guarded]:
        experiment = RunFolder(self._folder / RUNS / name).experiment()
        curves = curves_of(self._trackers, self._folder, self._group)
        sinks = {one.name: Guarded(one) for one in curves}
        for sink in sinks.values():
            sink.start(Started(name, experiment, fresh=False))
        self._open[name] = sinks
        return sinks

    def _ended(self, name: str) -> Ended | None:
        """Return the end of a finished trial, with its summary; None for another."""
        with suppress(UserError):
            if summary := RunFolder(self._folder / RUNS / name).summary():
                return Ended(summary.status, summary.ended_by, summary)
        return None

    def _end(self, name: str, ended: Ended) -> None:
        for sink in self._open.pop(name).values():
            sink.end(ended)


def _written_at(run: Path) -> int:
    """Return the time, in nanoseconds, at which a run's experiment was written; 0 for none."""
    try:
        return (run / EXPERIMENT).stat().st_mtime_ns
    except OSError:
        return 0
