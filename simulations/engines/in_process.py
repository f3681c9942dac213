"""The default engine: a Flower Grid that calls the ClientApp directly.

With one node the ClientApp runs in this process; with more, each node is a process of its own,
connected by a socket pair. No Ray, no SuperLink, no port, nothing written to disk.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import count
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from clients import pool
from clients.app import app
from simulations.engines.flower_private import (
    CLIENT_APP_FAILED,
    NODE_DIED,
    Run,
    identify,
    number,
)
from simulations.engines.node import RUN_ID, answer, node_context
from simulations.engines.processes import own_command, single_threaded_environment
from simulations.engines.wire import Frame, receive, send

log = logging.getLogger(__name__)

SERVER_NODE = 1
FIRST_NODE = 2
GRACE_SECONDS = 2.0
"""How long worker processes may take to end by themselves."""


class _Node(Protocol):
    @property
    def process_id(self) -> int: ...
    def send(self, frame: Frame) -> None: ...
    def receive(self) -> Frame: ...
    def close(self) -> None: ...
    def end(self, deadline: float) -> None: ...


class _LocalNode:
    """A node in this process: it works when its answer is wanted."""

    def __init__(self, client_app: ClientApp, context: Context) -> None:
        self._client_app = client_app
        self._context = context
        self._waiting: list[Frame] = []

    @property
    def process_id(self) -> int:
        return os.getpid()

    def send(self, frame: Frame) -> None:
        self._waiting.append(frame)

    def receive(self) -> Frame:
        return answer(self._waiting.pop(0), self._client_app, self._context)

    def close(self) -> None:
        self._waiting.clear()
        pool.forget()

    def end(self, deadline: float) -> None:
        """Do nothing: its process is this one."""


class _WorkerNode:
    """A node in a process of its own; it is started again if it dies."""

    def __init__(self, node_id: int, population: Path) -> None:
        self._arguments = [str(node_id), str(population)]
        self._pending: list[int] = []
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                own_command("simulations.engines.worker", theirs.fileno(), *self._arguments),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else None,
                env=single_threaded_environment(),
            )
        self.connection = Connection(ours.detach())

    @property
    def process_id(self) -> int:
        return self._process.pid

    def send(self, frame: Frame) -> None:
        self._pending.append(frame.number)
        try:
            send(self.connection, frame)
        except OSError:
            log.warning("worker process %d does not listen", self._process.pid)

    def receive(self) -> Frame:
        expected = self._pending.pop(0)
        try:
            return receive(self.connection)
        except (EOFError, OSError):
            self.close()
            self.end(time.monotonic() + GRACE_SECONDS)
            code = self._process.returncode
            self._start()
            return Frame("died", expected, RecordDict(), f"its process ended with code {code}")

    def close(self) -> None:
        """Let the process end by itself; it does when nobody can ask it anything more."""
        self.connection.close()

    def end(self, deadline: float) -> None:
        """End the process, by force if it still runs at the deadline."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class InProcessGrid(Grid):
    """A Flower Grid over nodes of this machine; a context manager that ends them.

    Args:
        population: The folder of the population that every node hosts.
        workers: Number of nodes.
    """

    def __init__(self, population: Path, workers: int = 1) -> None:
        self._run = Run.create_empty(RUN_ID)
        self._numbers = count(1)
        self._sent: dict[str, Message] = {}
        self._nodes: dict[int, _Node] = {}
        identify(RUN_ID, SERVER_NODE)
        node_ids = range(FIRST_NODE, FIRST_NODE + workers)
        for node_id in node_ids:
            self._nodes[node_id] = (
                _WorkerNode(node_id, population)
                if workers > 1
                else _LocalNode(app, node_context(node_id, population))
            )

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
        """Hand messages to their nodes and return the ids to pull the replies with."""
        ids = []
        for message in messages:
            serial = next(self._numbers)
            number(message, str(serial))
            self._sent[str(serial)] = message
            frame = Frame(message.metadata.message_type, serial, message.content)
            self._nodes[message.metadata.dst_node_id].send(frame)
            ids.append(str(serial))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to messages, in the order in which the nodes finish them."""
        waiting = [self._sent[key].metadata.dst_node_id for key in message_ids]
        while waiting:
            for node_id in _ready({n: self._nodes[n] for n in waiting}):
                waiting.remove(node_id)
                frame = self._nodes[node_id].receive()
                yield self._reply(frame, self._sent.pop(str(frame.number)))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send messages and yield the replies as the nodes finish.

        ``timeout`` has no effect: a node of this machine answers or is seen to have died.
        """
        del timeout
        return self.pull_messages(self.push_messages(messages))

    def _reply(self, frame: Frame, message: Message) -> Message:
        if frame.kind == "reply":
            reply = Message(frame.content, reply_to=message)
        else:
            code = NODE_DIED if frame.kind == "died" else CLIENT_APP_FAILED
            reply = Message(Error(code, frame.reason), reply_to=message)
        number(reply, str(next(self._numbers)))
        return reply


def _ready(nodes: dict[int, _Node]) -> list[int]:
    """Wait until some nodes have an answer; a node of this process always has."""
    connections = {
        node.connection: node_id for node_id, node in nodes.items() if isinstance(node, _WorkerNode)
    }
    if len(connections) < len(nodes):
        return list(nodes)
    return [connections[ready] for ready in wait(list(connections))]  # type: ignore[index]


def _has_descriptor(stream: object) -> bool:
    """Whether a stream is a real file; a notebook's and a test's may not be."""
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
    return True
