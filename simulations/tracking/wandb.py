"""Curves as an offline run of Weights & Biases, which ``wandb sync`` can upload later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsi.experiment import Scalar
from fedsi.extras import optional
from simulations.tracking.table import Tracked, Tracker

PROJECT = "fedsi"
_SECONDS = 60.0
"""Longest wait for its process to start."""


class OfflineRun:
    """A run that is kept on disk.

    Each continuation is another offline run with the same id, so that ``wandb sync`` appends it.

    Args:
        folder: Its folder.
        run: The run.
    """

    def __init__(self, folder: Path, run: Tracked) -> None:
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # there is no setting for it
        wandb = optional("wandb", "wandb")
        settings = wandb.Settings(
            mode="offline",
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            init_timeout=_SECONDS,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
        )
        self._run: Any = wandb.init(
            project=PROJECT,
            dir=str(folder),
            id=run.key,
            name=run.name,
            group=run.group or None,
            config=dict(run.settings),
            resume="allow",
            reinit="create_new",  # a study has several runs open
            settings=settings,
        )
        self._code = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values."""
        self._run.log(dict(values), step=step)

    def end(self, status: str, facts: Mapping[str, Scalar]) -> None:
        """Add the summary."""
        self._run.summary.update({"status": status, **facts})
        self._code = int(status in {"failed", "interrupted"})

    def close(self) -> None:
        """Write what is left, and end its process with the last run."""
        self._run.finish(exit_code=self._code)


TRACKER = Tracker(OfflineRun, "wandb", "wandb")
