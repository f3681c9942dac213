"""The nodes as the server sees them: one message each, answers as they come, failures counted."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fedsi.data.population import Description
from fedsi.data.vocabulary import VOCABULARY_FILES
from fedsi.errors import UnfinishedError, UserError
from fedsi.messages import (
    ARRAY_FORMAT,
    ARRAYS,
    VALUES,
    Describe,
    Described,
    Estimate,
    Estimated,
    Evaluate,
    FetchedVocabulary,
    FetchVocabulary,
    MessageError,
    Resolve,
    Resolved,
    Train,
    array_bytes,
    array_of_bytes,
    from_parts,
    to_parts,
)

log = logging.getLogger(__name__)

_MESSAGE_TYPES: dict[type, str] = {
    Describe: MessageType.QUERY,
    FetchVocabulary: f"{MessageType.QUERY}.vocabulary",
    Resolve: f"{MessageType.QUERY}.resolve",
    Estimate: f"{MessageType.QUERY}.estimate",
    Train: MessageType.TRAIN,
    Evaluate: MessageType.EVALUATE,
}

NODES_TIMEOUT = 60.0
"""Seconds to wait for the first node."""

_Answer = TypeVar("_Answer")
_DESCRIPTION = TypeAdapter(Description)


class NodesError(UnfinishedError):
    """The nodes cannot serve this experiment at all."""


def wait_for_nodes(grid: Grid) -> list[int]:
    """Return the ids of the connected nodes in ascending order, waiting for the first one.

    Raises:
        NodesError: None connected in time.
    """
    deadline = time.monotonic() + NODES_TIMEOUT
    while not (nodes := sorted(grid.get_node_ids())):
        if time.monotonic() > deadline:
            raise NodesError(f"no node connected within {NODES_TIMEOUT:.0f} seconds")
        time.sleep(0.5)
    return nodes


def ask(
    grid: Grid, requests: Mapping[int, Any], answer: type[_Answer], group: str = ""
) -> Iterator[tuple[int, _Answer]]:
    """Send one request to each node and yield (node, answer) as they come.

    A node that fails, answers nonsense or not at all yields nothing; it is logged.

    Args:
        grid: Flower's connection to the nodes.
        requests: The message for each node; all of one type.
        answer: The type that answers them.
        group: The round, for Flower's own log.
    """
    if not requests:  # without ids to wait for, Flower's remote grid would ask for any message
        return
    messages = [
        Message(
            _records(request),
            dst_node_id=node,
            message_type=_MESSAGE_TYPES[type(request)],
            group_id=group,
        )
        for node, request in requests.items()
    ]
    waiting = set(requests)
    for reply in grid.send_and_receive(messages):
        node = reply.metadata.src_node_id
        if node not in waiting:
            continue
        waiting.discard(node)
        if reply.has_error():
            log.warning("node %d failed: %s", node, reply.error.reason)
            continue
        try:
            parsed = _read(answer, reply)
        except MessageError as error:
            log.warning("node %d answered nonsense: %s", node, error)
            continue
        yield node, parsed
    for node in sorted(waiting):
        log.warning("node %d did not answer", node)


def describe(grid: Grid, nodes: Sequence[int], experiment: str) -> dict[int, Description]:
    """Ask nodes which population they host; those without a sensible answer are left out."""
    described = {}
    for node, answer in ask(grid, dict.fromkeys(nodes, Describe(experiment)), Described):
        try:
            described[node] = _DESCRIPTION.validate_json(answer.description)
        except ValidationError:
            log.warning("node %d described nonsense", node)
    return described


class Hosts:
    """The nodes that host a run's population, also those that connect while it runs.

    Args:
        grid: Flower's connection to the nodes.
        experiment: TOML.

    Raises:
        NodesError: No node connected, or none could open the population.
        UserError: The nodes host different populations.
    """

    def __init__(self, grid: Grid, experiment: str) -> None:
        self._grid = grid
        self._experiment = experiment
        self._hosting: dict[int, bool] = {}
        described = describe(grid, wait_for_nodes(grid), experiment)
        if not described:
            raise NodesError("no node could open the population; see the log above")
        self.description, *others = described.values()
        if any(other != self.description for other in others):
            raise UserError(
                "the nodes host different populations; start each of them with the same corpus "
                "and the same data settings"
            )
        self._hosting = dict.fromkeys(described, True)

    def connected(self) -> list[int]:
        """Return those that are connected now, ascending; one that is new is asked what it hosts.

        Raises:
            NodesError: There is none.
        """
        nodes = wait_for_nodes(self._grid)
        new = [node for node in nodes if node not in self._hosting]
        for node, description in describe(self._grid, new, self._experiment).items():
            self._hosting[node] = description == self.description
            if not self._hosting[node]:
                log.warning("node %d hosts another population and is not used", node)
        hosts = [node for node in nodes if self._hosting.get(node)]
        if not hosts:
            raise NodesError("none of the connected nodes hosts the population of this run")
        return hosts


def fetch_vocabulary(grid: Grid, nodes: Sequence[int], experiment: str) -> tuple[str, str]:
    """Ask for the vocabulary, one node after the other until one answers.

    Args:
        grid: Flower's connection to the nodes.
        nodes: Their ids; all host the same population.
        experiment: TOML.

    Returns:
        The name of the vocabulary's file, and its text.

    Raises:
        NodesError: No node answered.
    """
    for node in nodes:
        for _, answer in ask(grid, {node: FetchVocabulary(experiment)}, FetchedVocabulary):
            if answer.file_name in VOCABULARY_FILES:
                try:
                    return answer.file_name, str(json.loads(answer.content))
                except ValueError:
                    log.warning("node %d sent nonsense for its vocabulary", node)
    raise NodesError("no node could send its vocabulary; see the log above")


def resolve(
    grid: Grid, nodes: Sequence[int], experiment: str, names: Sequence[str]
) -> NDArray[np.int64]:
    """Ask for the indices of clients, one node after the other until one answers.

    Args:
        grid: Flower's connection to the nodes.
        nodes: Their ids; all host the same population.
        experiment: TOML.
        names: Ids of clients as in the corpus.

    Returns:
        Indices in the population, -1 where there is no such client: ``[names]``.

    Raises:
        NodesError: No node answered.
    """
    request = Resolve(experiment, json.dumps(names))
    for node in nodes:
        for _, answer in ask(grid, {node: request}, Resolved):
            if len(answer.clients) == len(names):
                return answer.clients
    raise NodesError("no node could look up the clients of the trace; see the log above")


def estimate_work(
    grid: Grid, nodes: Sequence[int], experiment: str, clients: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Ask how much work some clients are, one node after the other until one answers.

    Returns:
        About how many target tokens a pass over each client is; the same for each if no node
        answered: ``[clients]``.
    """
    for node in nodes if len(clients) else ():
        for _, answer in ask(grid, {node: Estimate(experiment, clients)}, Estimated):
            if len(answer.work) == len(clients):
                return answer.work
    return np.ones(len(clients), dtype=np.int64)


def _records(request: Any) -> RecordDict:
    arrays, values = to_parts(request)
    return RecordDict(
        {
            ARRAYS: ArrayRecord({name: _array(value) for name, value in arrays.items()}),
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
