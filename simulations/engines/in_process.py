"""The default engine: a Flower Grid that calls the ClientApp directly.

With one node the ClientApp runs in this process; with more, each node is a separate process
connected by a socket pair. There is no Ray, SuperLink or port, and nothing is written to disk.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from clients.app import app
from server.configuration import RunConfiguration
from server.rounds import Observer
from simulations.engines.flower_private import (
    CLIENT_APP_FAILED,
    NODE_DIED,
    Run,
    give_id,
    identify,
)
from simulations.engines.local_node import LocalNode
from simulations.engines.node import RUN_ID, node_context
from simulations.engines.serving import SERVER_NODE, served
from simulations.engines.table import Engine, EngineOptions, EngineResult
from simulations.engines.wire import Frame
from simulations.engines.worker_node import GRACE_SECONDS, WorkerNode

FIRST_NODE = 2
LONGEST_WAIT = 1800.0
"""Longest wait for a node in seconds, unless the run sets another."""


class InProcessGrid(Grid):
    """A Flower Grid over nodes on this machine; a context manager that ends them.

    Args:
        population: The folder of the population that every node hosts.
        workers: Number of nodes.
        longest_wait: Upper limit in seconds of every wait for a node, whatever the time-out of the
            request; the population is ready, so no request needs longer.
    """

    def __init__(
        self, population: Path, workers: int = 1, longest_wait: float = LONGEST_WAIT
    ) -> None:
        self._longest_wait = longest_wait
        self._run = Run.create_empty(RUN_ID)
        self._numbers = count(1)
        self._sent: dict[str, Message] = {}
        self._nodes: dict[int, LocalNode | WorkerNode] = {}
        identify(RUN_ID, SERVER_NODE)
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

    def set_run(self, run: Run) -> None:
        """Set the run; there is only one."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to a node."""
        return Message(
            content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass messages to their nodes and return the ids for pulling the replies."""
        ids = []
        for message in messages:
            serial = next(self._numbers)
            give_id(message, str(serial))
            self._sent[str(serial)] = message
            frame = Frame(message.metadata.message_type, serial, message.content)
            self._nodes[message.metadata.dst_node_id].send(frame)
            ids.append(str(serial))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to messages, in the order in which the nodes finish them."""
        return self._pull(message_ids, self._longest_wait)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send messages and yield the replies as the nodes finish.

        A node that has not replied in time is ended and restarted; the reply is then an error that
        names the client it was working on, if any.
        """
        longest = self._longest_wait if timeout is None else min(timeout, self._longest_wait)
        return self._pull(self.push_messages(messages), longest)

    def _pull(self, message_ids: Iterable[str], timeout: float) -> Iterator[Message]:
        waiting = [self._sent[key].metadata.dst_node_id for key in message_ids]
        deadline = time.monotonic() + timeout
        while waiting:
            for node_id, frame in self._answers(waiting, timeout, deadline):
                waiting.remove(node_id)
                yield self._reply(frame, self._sent.pop(str(frame.number)))

    def _answers(
        self, waiting: list[int], timeout: float, deadline: float
    ) -> Iterator[tuple[int, Frame]]:
        """Yield (node, reply) for nodes that have replied, for all nodes once the time is up."""
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

    def _reply(self, frame: Frame, message: Message) -> Message:
        if frame.kind == "reply":
            reply = Message(frame.content, reply_to=message)
        else:
            code = NODE_DIED if frame.kind == "died" else CLIENT_APP_FAILED
            reply = Message(Error(code, frame.reason), reply_to=message)
        give_id(reply, str(next(self._numbers)))
        return reply


def run_in_process(
    config: RunConfiguration,
    population: Path,
    observers: Sequence[Observer],
    options: EngineOptions,  # noqa: ARG001 - it uses none
) -> EngineResult:
    """Run the server over nodes on this machine, one per worker."""
    longest = config.experiment.server.round_timeout
    with InProcessGrid(population, config.workers or 1, longest) as grid:
        return served(grid, config, observers)


ENGINE = Engine(run_in_process)
