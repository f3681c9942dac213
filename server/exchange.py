"""Requests to nodes and their replies: one message each, replies as they arrive."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.errors import DamagedError
from fedsi.messages import (
    APP_CRASHED,
    ARRAY_FORMAT,
    ARRAYS,
    NODE_ENDED,
    REPLY_MISSING,
    VALUES,
    Describe,
    Estimate,
    Evaluate,
    FetchVocabulary,
    MessageError,
    Outcome,
    Personalise,
    Resolve,
    Reveal,
    TakeInventory,
    Train,
    TrainPooled,
    array_bytes,
    array_of_bytes,
    client_of,
    from_parts,
    to_parts,
)

_MESSAGE_TYPES: dict[type, str] = {
    Describe: MessageType.QUERY,
    TakeInventory: f"{MessageType.QUERY}.inventory",
    FetchVocabulary: f"{MessageType.QUERY}.vocabulary",
    Resolve: f"{MessageType.QUERY}.resolve",
    Reveal: f"{MessageType.QUERY}.reveal",
    Estimate: f"{MessageType.QUERY}.estimate",
    Train: MessageType.TRAIN,
    TrainPooled: f"{MessageType.TRAIN}.pooled",
    Evaluate: MessageType.EVALUATE,
    Personalise: f"{MessageType.EVALUATE}.personalise",
}

_OUTCOMES = {
    REPLY_MISSING: Outcome.TOO_SLOW,
    NODE_ENDED: Outcome.PROCESS_ENDED,
    APP_CRASHED: Outcome.PROCESS_ENDED,
}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Failure:
    """The reason why a node gave no valid reply."""

    reason: str
    client: int | None = None
    """The client that the node was working on, if known."""
    outcome: Outcome = Outcome.NODE_FAILED
    """What became of that client, or else of all requested ones."""


def exchange(
    grid: Grid, requests: Mapping[int, Any], answer: type[_Answer], timeout: float, group: str = ""
) -> Iterator[tuple[int, _Answer | Failure]]:
    """Send one request to each node and yield (node, reply) as replies arrive.

    Args:
        grid: Flower's connection to the nodes.
        requests: The message for each node; all of one type.
        answer: The type of the replies.
        timeout: Seconds to wait for the replies.
        group: The round, for Flower's own log.

    Yields:
        Each node and its reply, or the reason why there is none.

    Raises:
        DamagedError: A node found that a file of its population has been damaged.
    """
    if not requests:  # without ids to wait for, Flower's remote grid would pull any message
        return
    made: dict[int, Array] = {}
    messages = [
        Message(
            _records(request, made),
            dst_node_id=node,
            message_type=_MESSAGE_TYPES[type(request)],
            group_id=group,
        )
        for node, request in requests.items()
    ]
    waiting = set(requests)
    for reply in grid.send_and_receive(messages, timeout=timeout):
        node = _node_of(reply, messages)
        if node in waiting:
            waiting.discard(node)
            yield node, _answer_or_failure(answer, reply)
    for node in sorted(waiting):
        reason = f"it gave no answer within {timeout:.4g} s"
        yield node, Failure(reason, outcome=Outcome.TOO_SLOW)


def _node_of(reply: Message, messages: Sequence[Message]) -> int:
    """Return the node that a reply is of.

    A SuperLink reports in its own name that a node has ended. Such an error only names the message.
    """
    if reply.has_error():
        for message in messages:
            if message.metadata.message_id == reply.metadata.reply_to_message_id:
                return message.metadata.dst_node_id
    return reply.metadata.src_node_id


def _answer_or_failure(answer: type[_Answer], reply: Message) -> _Answer | Failure:
    if reply.has_error():
        reason = reply.error.reason or f"error {reply.error.code}"
        if DamagedError.__name__ in reason:
            raise DamagedError(reason.partition(DamagedError.__name__)[2].strip(" :<>'"))
        outcome = _OUTCOMES.get(reply.error.code, Outcome.NODE_FAILED)
        return Failure(reason, client_of(reason), outcome)
    try:
        return _read(answer, reply)
    except MessageError as error:
        return Failure(f"it sent an invalid reply: {error}")


def _records(request: Any, made: dict[int, Array]) -> RecordDict:
    """Return a request as Flower's records.

    Args:
        request: The request.
        made: Extended: the arrays of the requests to other nodes by the id of what they are of. The
            parameters are the same for all, and copied once.
    """
    arrays, values = to_parts(request)
    for value in arrays.values():
        if id(value) not in made:
            made[id(value)] = _array(value)
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: made[id(value)] for name, value in arrays.items()}),
            VALUES: ConfigRecord(values),
        }
    )


def _array(value: NDArray[Any]) -> Array:
    return Array(str(value.dtype), value.shape, ARRAY_FORMAT, array_bytes(value))


def _read(kind: type[_Answer], reply: Message) -> _Answer:
    try:
        records = reply.content
        received = records.array_records[ARRAYS].items()
        arrays = {name: array_of_bytes(array.data) for name, array in received}
        values = records.config_records[VALUES]
    except (KeyError, ValueError, TypeError) as error:
        raise MessageError(str(error)) from None
    return from_parts(kind, arrays, values)
