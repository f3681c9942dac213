"""A Flower Grid over nodes that an engine started itself."""

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import count

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedsi.messages import NODE_ENDED, REPLY_MISSING
from simulations.engines.flower_private import (
    CLIENT_APP_FAILED,
    Run,
    give_id,
    identify,
)
from simulations.engines.node import RUN_ID
from simulations.engines.serving import SERVER_NODE
from simulations.engines.wire import Frame

_CODES = {"died": NODE_ENDED, "late": REPLY_MISSING}
FIRST_NODE = 2
LONGEST_WAIT = 1800.0
"""Longest wait for a node in seconds, unless the run sets another."""


class NodesGrid(Grid):
    """A Flower Grid that passes messages to nodes and gives each its reply, whatever happens.

    Args:
        longest_wait: Upper limit in seconds of every wait for a node, whatever the time-out of the
            request; the population is ready, so no request needs longer.
    """

    def __init__(self, longest_wait: float) -> None:
        self._longest_wait = longest_wait
        self._run = Run.create_empty(RUN_ID)
        self._numbers = count(1)
        self._sent: dict[str, Message] = {}
        identify(RUN_ID, SERVER_NODE)

    @abstractmethod
    def _send(self, node_id: int, frame: Frame, timeout: float) -> None:
        """Send a request to a node, which has ``timeout`` seconds to reply."""

    @abstractmethod
    def _answers(
        self, waiting: list[int], timeout: float, deadline: float
    ) -> Iterator[tuple[int, Frame]]:
        """Yield (node, reply) for nodes that have replied, for all nodes once the time is up."""

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

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass messages to their nodes and return the ids for pulling the replies."""
        return self._push(messages, self._longest_wait)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies to messages, in the order in which the nodes finish them."""
        return self._pull(message_ids, self._longest_wait)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Send messages and yield the replies as the nodes finish.

        A node that has not replied in time is ended and restarted; the reply is then an error that
        names the client it was working on, if that is known.
        """
        longest = self._longest_wait if timeout is None else min(timeout, self._longest_wait)
        return self._pull(self._push(messages, longest), longest)

    def _push(self, messages: Iterable[Message], timeout: float) -> list[str]:
        ids = []
        for message in messages:
            serial = next(self._numbers)
            give_id(message, str(serial))
            self._sent[str(serial)] = message
            frame = Frame(message.metadata.message_type, serial, message.content)
            self._send(message.metadata.dst_node_id, frame, timeout)
            ids.append(str(serial))
        return ids

    def _pull(self, message_ids: Iterable[str], timeout: float) -> Iterator[Message]:
        waiting = [self._sent[key].metadata.dst_node_id for key in message_ids]
        deadline = time.monotonic() + timeout
        while waiting:
            for node_id, frame in self._answers(waiting, timeout, deadline):
                waiting.remove(node_id)
                yield self._reply(frame, self._sent.pop(str(frame.number)))

    def _reply(self, frame: Frame, message: Message) -> Message:
        if frame.kind == "reply":
            reply = Message(frame.content, reply_to=message)
        else:
            error = Error(_CODES.get(frame.kind, CLIENT_APP_FAILED), frame.reason)
            reply = Message(error, reply_to=message)
        give_id(reply, str(next(self._numbers)))
        return reply
