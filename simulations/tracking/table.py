"""The table of trackers, programs that show a run's curves: ``--track NAME``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedsi.experiment import Scalar
from fedsi.tables import Table

NO_STEP = -1
"""The last round of a run whose curves have none."""


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker sees it."""

    name: str
    """Name of the run beside others: its folder's, or the trial's."""
    group: str
    """Name of the study; empty for a single run."""
    key: str
    """32 hexadecimal digits that stay the same when the run is resumed."""
    step: int
    """The last round that the tracker already has; ``NO_STEP`` for a new run, whose first is 0."""
    settings: Mapping[str, Scalar]
    """All keys of the experiment."""


class Curves(Protocol):
    """The curves of one run, open for writing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values, named as in ``rounds.csv``, of the round ``step``.

        They are on disk when it returns, or with a process that will write them even if this one
        is killed. Values that are not finite are left out by the caller.
        """

    def end(self, status: str, facts: Mapping[str, Scalar]) -> None:
        """Note how the run ended, and facts of its summary."""

    def close(self) -> None:
        """Release files, threads and processes."""


@dataclass(frozen=True)
class Tracker:
    """An entry of the table.

    ``open(folder, run)`` opens the curves of a run in the tracker's own folder, which exists. It
    imports the package, writes only there and uses no network.
    """

    open: Callable[[Path, Tracked], Curves]
    package: str = ""
    """The package that it needs, and the extra of fedsi that installs it; empty for none."""
    extra: str = ""


TRACKERS: Table[Tracker] = Table(
    "--track",
    "simulations.tracking.table:Tracker",
    "TRACKER",
    {
        "tensorboard": "simulations.tracking.tensorboard",
        "wandb": "simulations.tracking.wandb",
        "mlflow": "simulations.tracking.mlflow",
    },
    own="a Tracker of yours",
)
