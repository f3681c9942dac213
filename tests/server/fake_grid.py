"""A Grid whose nodes are functions, for tests of the server's handling of replies."""

from collections.abc import Callable, Iterable, Iterator

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedsi.data.population import WHOLE
from fedsi.messages import NODE_ENDED
from server.nodes import Hosting
from simulations.engines.flower_private import Run, give_id, identify

Node = Callable[[Message], Message | None]


class FakeGrid(Grid):
    """Calls a function for each node; None is a reply that never comes."""

    def __init__(self, nodes: dict[int, Node], *, backwards: bool = False) -> None:
        self.nodes = nodes
        self.sent: list[Message] = []
        self._backwards = backwards
        identify(run_id=1, node_id=1)

    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        raise AssertionError("messages are made with Message")

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise AssertionError("not used")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise AssertionError("not used")

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        self.sent += messages
        pending = list(self.sent)
        self.sent.clear()
        for number, message in enumerate(pending):
            give_id(message, f"message {number}")
        for message in reversed(pending) if self._backwards else pending:
            reply = self.nodes[message.metadata.dst_node_id](message)
            if reply is not None:
                yield reply


def raising(message: Message) -> Message:
    """Reply like a node whose ClientApp raised an exception."""
    return Message(Error(2, "it broke"), reply_to=message)


def ended(message: Message) -> Message:
    """Reply like a SuperLink, in its own name, whose node has ended."""
    reply = Message(Error(NODE_ENDED, "the node is offline"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = 1
    return reply


def silent(_message: Message) -> None:
    """Never reply."""
    return


def nonsense(message: Message) -> Message:
    """Reply with an empty message."""
    return Message(RecordDict(), reply_to=message)


def hosted_by(nodes: Iterable[int]) -> Hosting:
    """Return nodes that each host the whole population."""
    return Hosting(dict.fromkeys(nodes, WHOLE))
