"""The default engine: a Flower Grid that calls the ClientApp directly.

With one node the ClientApp runs in this process; with more, each node is a separate process
connected by a socket pair and shared memory. There is no Ray, SuperLink or port, and nothing is
written to disk.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from clients.app import app
from fedsi.errors import UserError
from server.configuration import RunConfiguration
from server.observers import Observer
from simulations.engines.local_node import LocalNode
from simulations.engines.node import node_context
from simulations.engines.nodes_grid import FIRST_NODE, LONGEST_WAIT, NodesGrid
from simulations.engines.serving import served
from simulations.engines.table import Engine, EngineOptions, EngineResult
from simulations.engines.wire import Frame
from simulations.engines.worker_node import GRACE_SECONDS, WorkerNode


class InProcessGrid(NodesGrid):
    """A Flower Grid over nodes on this machine; a context manager that ends them.

    Args:
        population: The folder of the population that every node hosts.
        workers: Number of nodes.
        longest_wait: Upper limit in seconds of every wait for a node.
    """

    def __init__(
        self, population: Path, workers: int = 1, longest_wait: float = LONGEST_WAIT
    ) -> None:
        super().__init__(longest_wait)
        self._nodes: dict[int, LocalNode | WorkerNode] = {}
        node_ids = range(FIRST_NODE, FIRST_NODE + workers)
        try:
            for node_id in node_ids:
                self._nodes[node_id] = (
                    WorkerNode(node_id, population, longest_wait)
                    if workers > 1
                    else LocalNode(app, node_context(node_id, population))
                )
        except BaseException:  # end the nodes that have been started
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # All are closed first, so that they end at the same time.
        for node in self._nodes.values():
            node.close()
        deadline = time.monotonic() + GRACE_SECONDS
        for node in self._nodes.values():
            node.end(deadline)

    def processes(self) -> list[int]:
        """Return the ids of the processes that the nodes run in."""
        return [node.process_id for node in self._nodes.values()]

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes."""
        return list(self._nodes)

    def _send(self, node_id: int, frame: Frame, timeout: float) -> None:  # noqa: ARG002
        self._nodes[node_id].send(frame)

    def _answers(
        self, waiting: list[int], timeout: float, deadline: float
    ) -> Iterator[tuple[int, Frame]]:
        nodes = {node_id: self._nodes[node_id] for node_id in waiting}
        workers = {n: node for n, node in nodes.items() if isinstance(node, WorkerNode)}
        for node_id, node in nodes.items():
            if isinstance(node, LocalNode):
                yield node_id, node.receive(timeout)
        if not workers:
            return
        left = max(0.0, deadline - time.monotonic())
        ready = wait([node.connection for node in workers.values()], left)
        for node_id, node in workers.items():
            if node.connection in ready:
                yield node_id, node.receive()
            elif not ready:
                yield node_id, node.give_up(timeout)


def run_in_process(
    config: RunConfiguration,
    population: Path,
    observers: Sequence[Observer],
    options: EngineOptions,  # noqa: ARG001 - it uses none
) -> EngineResult:
    """Run the server over nodes on this machine, one per worker.

    Raises:
        UserError: A fault of the experiment would end this process.
    """
    _refuse_own_end(config)
    longest = config.experiment.server.round_timeout
    with InProcessGrid(population, config.workers or 1, longest) as grid:
        return served(grid, config, observers)


def _refuse_own_end(config: RunConfiguration) -> None:
    deadly = config.experiment.faults.shares.keys() & {"killed", "stopped"}
    if deadly and (config.workers or 1) == 1:
        raise UserError(
            f"faults.{min(deadly)} ends the process that trains a client, which without workers is "
            "the whole run; add --workers 2, or leave it out"
        )


ENGINE = Engine(run_in_process)
