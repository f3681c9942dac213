"""Progress on standard error: bars on a terminal, occasional lines elsewhere."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from simulations.cli.foreign_output import others_to_stderr
from simulations.safe_text import one_line

if TYPE_CHECKING:
    from fedsi.data.population import Description
    from fedsi.experiment import Experiment
    from server.round_record import RoundRecord

RECENT = 10
"""Number of rounds over which the speed is averaged."""


class Display:
    """Shows progress, and keeps other output off standard output.

    A user's model may print when it is imported or called. That goes to standard error, so that
    standard output holds only the result.

    Args:
        console: The console; only a terminal shows bars.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(compact=True),
            expand=True,
            console=console,
            disable=not console.is_terminal,
        )
        self._others = ExitStack()
        self._tasks: dict[str, TaskID] = {}
        self._seen: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._others.enter_context(others_to_stderr())
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()
        self._others.close()

    def step(self, what: str, done: int, total: int | None) -> None:
        """Show the progress of a piece of work; see ``fedsi.data.corpus.Progress``."""
        if what not in self._tasks and not self._console.is_terminal:
            self._console.print(f"{what} ...")
        self._bars.update(self._task(what, total), completed=done, total=total)

    def corpus(self, experiment: "Experiment", description: "Description") -> None:
        """Report unused parts of a corpus and unusual settings, if there are any."""
        from fedsi.data.cautions import cautions
        from fedsi.data.shortfall import shortfall

        warnings = [f"warning: {caution}" for caution in cautions(experiment, description)]
        for sentence in shortfall(description) + warnings:
            self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def rounds(self, name: str, records: Sequence["RoundRecord"], total: int) -> None:
        """Show a run's rounds so far."""
        if not records or len(records) == self._seen.get(name):
            return
        before, self._seen[name] = self._seen.get(name, 0), len(records)
        task = self._task(name, total)
        self._bars.update(task, completed=records[-1].round, detail=_detail(records))
        if not self._console.is_terminal and any(r.heldout for r in records[before:]):
            self._console.print(
                f"{name}: round {records[-1].round} of {total}, {_detail(records)}",
                highlight=False,
                soft_wrap=True,
            )

    def _task(self, name: str, total: int | None) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(one_line(name), total=total, detail="")
        return self._tasks[name]


def _detail(records: Sequence["RoundRecord"]) -> str:
    """Return losses, speed and, if there are any, lost contributions and repeated rounds.

    Without these it is short enough for a terminal of 80 columns.
    """
    heldout = next((r.heldout["loss"] for r in reversed(records) if r.heldout), None)
    if records[-1].round == 0:
        return f"untrained, held-out {heldout:.3f}"
    recent = records[-RECENT:]
    speed = sum(r.clients for r in recent) / sum(r.train_seconds for r in recent)
    # A round without a cohort has no loss, so the latest one with a cohort is shown.
    cohort = next((r.train_loss for r in reversed(records) if r.clients), math.nan)
    losses = f"cohort {cohort:.3f}"
    if heldout is not None:
        losses += f" held-out {heldout:.3f}"
    if math.isfinite(records[-1].epsilon):
        losses += f" epsilon {records[-1].epsilon:.2f}"
    counts = {
        "lost": sum(r.rejected + r.failed for r in records),
        "repeated": sum(r.repeats > 0 for r in records),
    }
    told = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    return f"{losses}, {speed:.0f} clients/s{told}"
