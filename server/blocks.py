"""Blocks: clients dealt to nodes, with retries that leave out a client at which a node failed."""

import heapq
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.data.population import Shard
from fedsi.experiment import Experiment
from fedsi.messages import Outcome
from server.exchange import Failure, exchange
from server.nodes import Hosting, estimate_work
from server.replies import ReplyError

log = logging.getLogger(__name__)

PATIENCE = 3
"""Time limit for all replies of a job, including those of retried nodes, in multiples of the limit
for one reply."""

ASKED_AT_ONCE = 4096
"""Largest population whose work is estimated in one message."""

Ids = NDArray[np.int64]
_Answer = TypeVar("_Answer")


def _uncounted(_places: Ids, _outcome: Outcome) -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Job(Generic[_Answer]):
    """A request to all nodes, each for its own clients.

    Args:
        name: The purpose, for the log.
        clients: All clients, ``[clients]``.
        request: Returns the message for some of the clients.
        answer: The type of the reply.
        check: Raises ``ReplyError`` if a reply is invalid for a number of clients.
        timeout: Seconds to wait for a node's reply.
        lost: Called with the places of clients without a valid reply, and why.
    """

    name: str
    clients: Ids
    request: Callable[[Ids], Any]
    answer: type[_Answer]
    check: Callable[[_Answer, int], None]
    timeout: float
    lost: Callable[[Ids, Outcome], None] = _uncounted


def answers(grid: Grid, blocks: dict[int, Ids], job: Job[_Answer]) -> Iterator[tuple[Ids, _Answer]]:
    """Send nodes their blocks and yield (places, reply) as replies arrive.

    If a node fails and names the client that it failed at, it is asked again: first for the clients
    before it, which it had finished, then for those after it. If it fails otherwise, its clients
    are lost. So are clients not reached within ``PATIENCE`` times the job's time limit. Each loss
    is logged.

    Args:
        grid: Flower's connection to the nodes.
        blocks: The places of each node's clients among the job's clients.
        job: The request.
    """
    deadline = time.monotonic() + PATIENCE * job.timeout
    waiting = {node: [Piece(places)] for node, places in blocks.items()}
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            waiting, left = _finished_before(waiting, job), job.timeout
        requests = {node: job.request(job.clients[ps[0].places]) for node, ps in waiting.items()}
        again = {}
        for node, reply in exchange(
            grid, requests, job.answer, min(job.timeout, left), group=job.name
        ):
            asked, *later = waiting[node]
            failure = reply if isinstance(reply, Failure) else _doubt(job, reply, asked.places)
            if failure is None:
                yield asked.places, reply  # type: ignore[misc]
            else:
                later = [*_without(job, node, asked.places, failure), *later]
            if later:
                again[node] = later
        waiting = again


@dataclass(frozen=True)
class Piece:
    """Places of clients that are requested from a node in one message.

    Args:
        places: The places, in the order in which the node trains them.
        finished: Whether the node had finished them before it failed at another client.
    """

    places: Ids
    finished: bool = False


def _finished_before(waiting: dict[int, list[Piece]], job: Job[Any]) -> dict[int, list[Piece]]:
    """Return the pieces that were finished before and are quick; the rest is lost, and logged."""
    kept = {node: [piece for piece in pieces if piece.finished] for node, pieces in waiting.items()}
    lost = [piece for pieces in waiting.values() for piece in pieces if not piece.finished]
    if lost:
        places = np.concatenate([piece.places for piece in lost])
        log.warning("%d more clients are lost to %s: no time is left", len(places), job.name)
        job.lost(places, Outcome.TOO_SLOW)
    return {node: pieces for node, pieces in kept.items() if pieces}


def _doubt(job: Job[_Answer], reply: _Answer, places: Ids) -> Failure | None:
    """Return the reason to reject a reply, or None."""
    try:
        job.check(reply, len(places))
    except ReplyError as error:
        return Failure(f"its reply is invalid: {error}")
    return None


def _without(job: Job[Any], node: int, places: Ids, failure: Failure) -> list[Piece]:
    """Return the pieces to request from a node again after a failure; lost clients are logged."""
    at = np.flatnonzero(job.clients[places] == failure.client)
    if failure.client is None or not len(at):
        log.warning(
            "%d clients are lost to %s: node %d failed: %s; a run with losses continues, but "
            "cannot be repeated bit by bit", len(places), job.name, node, failure.reason,
        )  # fmt: skip
        job.lost(places, failure.outcome)
        return []
    job.lost(places[at[:1]], failure.outcome)
    log.warning(
        "client %d is lost to %s: node %d failed: %s; if it happens again, check this client's "
        "data, or raise server.round_timeout if it was only slow (also with --resume)",
        failure.client, job.name, node, failure.reason,
    )  # fmt: skip
    pieces = Piece(places[: at[0]], finished=True), Piece(places[at[0] + 1 :])
    return [piece for piece in pieces if len(piece.places)]


def dealt(grid: Grid, hosting: Hosting, experiment: Experiment, clients: Ids) -> dict[int, Ids]:
    """Deal clients to the nodes that host them, as places in the list.

    Nodes without a client are left out, and so are clients whose shard no node hosts.
    """
    blocks: dict[int, Ids] = {}
    for shard, nodes in hosting.by_shard().items():
        places = np.flatnonzero(shard.hosts(clients))
        if len(nodes) == 1:
            blocks[nodes[0]] = places
        elif len(places):
            work = _remembered_work(grid, hosting, nodes, experiment, shard, clients[places])
            parts = balanced(work, len(nodes))
            blocks |= {node: places[part] for node, part in zip(nodes, parts, strict=True)}
    dealt_out = sum(map(len, blocks.values()))
    if dealt_out < len(clients):
        log.warning(
            "%d of %d clients are lost: no connected node hosts their shard",
            len(clients) - dealt_out, len(clients),
        )  # fmt: skip
    return {node: places for node, places in blocks.items() if len(places)}


def _remembered_work(
    grid: Grid,
    hosting: Hosting,
    nodes: Sequence[int],
    experiment: Experiment,
    shard: Shard,
    clients: Ids,
) -> NDArray[np.int64]:
    """Return the work of clients of a shard, ``[clients]``; nodes are asked once about a client.

    In a small population the first request is about all clients, because a message to a deployed
    node takes seconds.
    """
    unknown = [client for client in clients.tolist() if client not in hosting.work]
    if unknown:
        everyone = np.arange(hosting.clients if hosting.clients <= ASKED_AT_ONCE else 0)
        asked = np.union1d(unknown, everyone[shard.hosts(everyone)]).astype(np.int64)
        work = estimate_work(grid, nodes, experiment, asked)
        if work is None:
            return np.ones(len(clients), np.int64)
        hosting.work.update(zip(asked.tolist(), work.tolist(), strict=True))
    return np.array([hosting.work[client] for client in clients.tolist()], np.int64)


def balanced(work: NDArray[np.int64], blocks: int) -> list[Ids]:
    """Deal places to blocks, largest first, each to the block with the least work so far.

    Ties go to the block with fewer places, because an estimate may be 0 for all.

    This is Graham's rule (SIAM J. Appl. Math. 1969): the busiest block has at most 4/3 of the
    optimum.

    Args:
        work: Work of each place, ``[places]``.
        blocks: Number of blocks.

    Returns:
        The places of each block, ascending.
    """
    loads = [(0, 0, block) for block in range(blocks)]
    block_of = np.empty(len(work), dtype=np.int64)
    for place in np.argsort(-work, kind="stable"):
        load, places, block = heapq.heappop(loads)
        block_of[place] = block
        heapq.heappush(loads, (load + int(work[place]), places + 1, block))
    return [np.flatnonzero(block_of == block) for block in range(blocks)]
