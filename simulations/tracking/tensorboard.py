"""Curves as TensorBoard's event files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsi.experiment import Scalar
from fedsi.extras import optional
from simulations.tracking.table import NO_STEP, Tracked, Tracker


class EventFiles:
    """An event file of a run.

    Args:
        folder: TensorBoard's folder; each run has one of its own in it.
        run: The run.
    """

    def __init__(self, folder: Path, run: Tracked) -> None:
        package = optional("torch.utils.tensorboard", "tensorboard")
        # What a killed process logged after the last known round is dropped.
        self._writer: Any = package.SummaryWriter(str(folder / run.name), purge_step=run.step + 1)
        if run.step == NO_STEP:
            rows = "".join(f"    {key} = {value}\n" for key, value in run.settings.items())
            self._writer.add_text("experiment", rows, 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self, status: str, facts: Mapping[str, Scalar]) -> None:
        """Add a text."""
        rows = "".join(f"    {key} = {value}\n" for key, value in facts.items())
        self._writer.add_text("end", f"    status = {status}\n{rows}", 0)

    def close(self) -> None:
        """Close the file and end its thread."""
        self._writer.close()


TRACKER = Tracker(EventFiles, "tensorboard", "tensorboard")
