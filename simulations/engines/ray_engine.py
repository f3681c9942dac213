"""The Ray engine: each node is an actor of Flower's simulation engine on a Ray cluster.

The server is the usual one, in this process. A few of Flower's actors run the usual ClientApp, each
for many clients. Flower's own message loop is not used: it waits for an actor without a limit, and
an actor that died stays in its pool and fails every message that it is given.
"""

import logging
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.extras import optional
from fedsi.learning.algorithms.table import algorithm_of
from server.configuration import RunConfiguration
from server.nodes import NodesError
from server.observers import Observer
from server.runs.provenance import provenance
from simulations.engines.nodes_grid import FIRST_NODE, LONGEST_WAIT, NodesGrid
from simulations.engines.ray_cluster import machines, ray_cluster
from simulations.engines.ray_node import RayNode
from simulations.engines.serving import served
from simulations.engines.table import Engine, EngineOptions, EngineResult
from simulations.engines.wire import Frame

log = logging.getLogger(__name__)

START_SECONDS = 300.0
"""Time limit for the cluster to have room for the nodes, and for these to start."""
MARGIN_SECONDS = 10.0
"""Time that an actor has to report by itself that its time is up, before it is ended."""


class RayGrid(NodesGrid):
    """A Flower Grid over actors on the connected Ray cluster; a context manager that ends them.

    An actor that dies or does not reply in time is replaced. Until its successor is ready, the
    server deals its clients to the other nodes; that is logged once.

    Args:
        population: The folder of the population that every node hosts. A machine that does not have
            this folder prepares the corpus in its own cache.
        folder: A temporary folder of this machine.
        nodes: Number of groups of actors, spread over the machines.
        workers: Number of actors in a group, each a node for Flower.
        longest_wait: Upper limit in seconds of every wait for an actor.
        shared: A file where clients keep vectors, which every machine must have; None if they keep
            none.

    Raises:
        UserError: The cluster is too small, or a machine does not have the file.
        NodesError: It has no room, or no actor started in time.
    """

    def __init__(
        self,
        population: Path,
        folder: Path,
        nodes: int,
        workers: int = 1,
        longest_wait: float = LONGEST_WAIT,
        shared: Path | None = None,
    ) -> None:
        super().__init__(longest_wait)
        self._ray = optional("ray", "ray")
        self._nodes: dict[int, RayNode] = {}
        self._absent: set[int] = set()
        self._room = self._reserved(nodes, workers)
        facts = provenance(Experiment(), "ray", None)
        try:
            for number in range(nodes * workers):
                place = {"num_cpus": 1, "scheduling_strategy": self._bundle(number // workers)}
                node_id = FIRST_NODE + number
                self._nodes[node_id] = RayNode(node_id, population, place, folder, facts, shared)
            self._wait_for_nodes()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _reserved(self, nodes: int, workers: int) -> object:
        needed, there = nodes * workers, self._ray.cluster_resources().get("CPU", 0)
        if needed > there:
            raise UserError(
                f"{nodes} node(s) of {workers} worker(s) need {needed} processors, and the Ray "
                f"cluster has {there:g}; use fewer, or add machines to the cluster"
            )
        room = self._ray.util.placement_group([{"CPU": workers}] * nodes, strategy="SPREAD")
        if not room.wait(START_SECONDS):
            self._ray.util.remove_placement_group(room)
            raise NodesError(
                f"the Ray cluster had no room for {nodes} node(s) of {workers} worker(s) within "
                f"{START_SECONDS:.0f} s; each needs {workers} free processor(s) of one machine"
            )
        return room

    def _bundle(self, number: int) -> object:
        strategies = self._ray.util.scheduling_strategies
        return strategies.PlacementGroupSchedulingStrategy(self._room, number)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        ready = [
            node.is_ready(max(0.0, deadline - time.monotonic())) for node in self._nodes.values()
        ]
        if not any(ready):
            raise NodesError("no node could be started on the Ray cluster; see the log above")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in self._nodes.values():
            node.end()
        self._ray.util.remove_placement_group(self._room)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes whose actors are ready; the server uses only these."""
        ready = [node_id for node_id, node in self._nodes.items() if node.is_ready()]
        absent = set(self._nodes) - set(ready)
        if new := sorted(absent - self._absent):
            log.warning("without node(s) %s: the others train all clients", new)
        self._absent = absent
        return ready

    def _send(self, node_id: int, frame: Frame, timeout: float) -> None:
        self._nodes[node_id].send(frame, timeout)

    def _answers(
        self, waiting: list[int], timeout: float, deadline: float
    ) -> Iterator[tuple[int, Frame]]:
        nodes = {node_id: self._nodes[node_id] for node_id in waiting}
        left = max(0.0, deadline + MARGIN_SECONDS - time.monotonic())
        replies = [node.reply for node in nodes.values()]
        ready, _ = self._ray.wait(replies, num_returns=1, timeout=left)
        for node_id, node in nodes.items():
            if node.reply in ready:
                yield node_id, node.receive()
            elif not ready:
                yield node_id, node.give_up(timeout)


@contextmanager
def kept_where(config: RunConfiguration) -> Iterator[Path | None]:
    """Yield a file where clients keep vectors, so that nodes can tell whether they share the place.

    It is in the run's folder, or the folder that this one will be in; without a folder the vectors
    are in a temporary one of this machine. None for an algorithm whose clients keep nothing.
    """
    if not algorithm_of(config.experiment).kept:
        yield None
        return
    folder = (config.folder or Path(tempfile.gettempdir())).absolute()
    while not folder.is_dir():
        folder = folder.parent
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".shared-") as file:
        yield Path(file.name)


def run_on_ray(
    config: RunConfiguration,
    population: Path,
    observers: Sequence[Observer],
    options: EngineOptions,
) -> EngineResult:
    """Run the server over actors on a Ray cluster."""
    workers = config.workers or 1
    longest = config.experiment.server.round_timeout
    with ray_cluster(options.ray_address, workers * (options.nodes or 1)) as folder:
        nodes = options.nodes or machines()
        with (
            kept_where(config) as shared,
            RayGrid(population.absolute(), folder, nodes, workers, longest, shared) as grid,
        ):
            return served(grid, replace(config, workers=nodes * workers), observers)


ENGINE = Engine(run_on_ray, frozenset({"nodes", "ray_address"}))
