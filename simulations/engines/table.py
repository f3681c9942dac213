"""The table of engines, which decide where nodes run."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsi.errors import UserError
from fedsi.tables import Table, without_effect

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from server.configuration import RunConfiguration
    from server.observers import Observer
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
class EngineOptions:
    """Options that only some engines use; None where one is not given."""

    nodes: int | None = None
    """Number of nodes; each has ``RunConfiguration.workers`` processes."""
    ray_address: str | None = None
    """Address of a running Ray cluster; by default one is started on this machine."""
    superlink: str | None = None
    """HOST:PORT of the SuperLink to which the nodes are connected."""
    superlink_secret: Path | None = None
    """File of the SuperLink's secret."""
    root_certificates: Path | None = None
    """PEM file of the certificates that the SuperLink's is checked against; None for the
    system's."""
    insecure: bool | None = None
    """Whether to connect without TLS, which only a SuperLink on this machine may."""


NO_OPTIONS = EngineOptions()


@dataclass(frozen=True)
class Engine:
    """An entry of the table.

    ``run(config, population, observers, options)`` starts the nodes on a population's folder, runs
    the server over them, calls the observers after each round in the given order, and always ends
    the nodes.
    """

    run: "Callable[[RunConfiguration, Path, Sequence[Observer], EngineOptions], EngineResult]"
    options: frozenset[str] = frozenset()
    """Names of the ``EngineOptions`` that it uses."""
    remote: bool = False
    """Whether its nodes host populations of their own; then this machine needs no corpus."""


ENGINES: Table[Engine] = Table(
    "engine",
    "simulations.engines.table:Engine",
    "ENGINE",
    {
        "in_process": "simulations.engines.in_process",
        "ray": "simulations.engines.ray_engine",
        "deployed": "simulations.engines.deployed",
    },
)
USUAL = "in_process"
"""The default engine."""


def engine_for(name: str, options: EngineOptions) -> Engine:
    """Return an engine that uses all given options.

    Raises:
        UserError: There is no such engine, or an option has no effect with it.
    """
    engine = ENGINES[name]
    for option, value in asdict(options).items():
        if value is not None and option not in engine.options:
            owners = [other for other in ENGINES if option in ENGINES[other].options]
            raise UserError(without_effect(option, "engine", name, owners))
    return engine
