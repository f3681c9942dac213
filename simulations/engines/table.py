"""The table of engines, which decide where nodes run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from server.configuration import RunConfiguration
    from server.rounds import Observer
    from server.runs.summary import Summary


@dataclass(frozen=True)
class EngineResult:
    """The result of a run."""

    summary: "Summary"
    parameters: "NDArray[np.float32]"
    """All parameters as one flat vector."""
    rows: str
    """The content of ``rounds.csv``."""


@dataclass(frozen=True)
class Engine:
    """An entry of the table.

    ``run(config, population, observers)`` starts the nodes on a population's folder, runs the
    server over them, calls the observers after each round in the given order, and always ends the
    nodes.
    """

    run: "Callable[[RunConfiguration, Path, Sequence[Observer]], EngineResult]"


ENGINES: Table[Engine] = Table(
    "engine",
    "simulations.engines.table:Engine",
    "ENGINE",
    {"in_process": "simulations.engines.in_process"},
)
USUAL = "in_process"
"""The default engine."""
