"""Blocks: clients dealt to nodes, and asked for again without a client at which a node failed."""

import heapq
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from server.exchange import Failure, exchange
from server.nodes import estimate_work
from server.replies import ReplyError

log = logging.getLogger(__name__)

PATIENCE = 3
"""All the answers of a job, with those of nodes that are asked again, are waited for at most so
many times as long as for one."""

Ids = NDArray[np.int64]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Job(Generic[_Answer]):
    """What is asked of all nodes, each for clients of its own.

    Args:
        name: What the clients are asked for, for the log.
        clients: All of them, ``[clients]``.
        request: Returns the message that asks for some of them.
        answer: The type that answers it.
        check: Raises ``ReplyError`` if an answer cannot be one for so many clients.
        timeout: Seconds to wait for a node's answer.
    """

    name: str
    clients: Ids
    request: Callable[[Ids], Any]
    answer: type[_Answer]
    check: Callable[[_Answer, int], None]
    timeout: float


def answers(grid: Grid, blocks: dict[int, Ids], job: Job[_Answer]) -> Iterator[tuple[Ids, _Answer]]:
    """Ask nodes for their blocks and yield (places, answer) as they come.

    A node that failed at a client which it can name is asked again for those before it, which it
    had finished, and then for those after it. The clients of a node that failed otherwise are lost,
    as are those that nobody got to when all of it has taken ``PATIENCE`` times the job's time
    limit. Each loss is logged.

    Args:
        grid: Flower's connection to the nodes.
        blocks: The places of each node's clients among the job's.
        job: What is asked.
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
    """Places of clients that a node is asked for at once.

    Args:
        places: In the order in which the node trains them.
        finished: Whether the node had finished them before it failed at another client.
    """

    places: Ids
    finished: bool = False


def _finished_before(waiting: dict[int, list[Piece]], job: Job[Any]) -> dict[int, list[Piece]]:
    """Return what takes no long time; the rest is lost, and that is logged."""
    kept = {node: [piece for piece in pieces if piece.finished] for node, pieces in waiting.items()}
    every = sum(len(piece.places) for pieces in waiting.values() for piece in pieces)
    lost = every - sum(len(piece.places) for pieces in kept.values() for piece in pieces)
    if lost:
        log.warning("%d more clients are lost to %s: no time is left", lost, job.name)
    return {node: pieces for node, pieces in kept.items() if pieces}


def _doubt(job: Job[_Answer], reply: _Answer, places: Ids) -> Failure | None:
    """Return why an answer is not believed; None if it is."""
    try:
        job.check(reply, len(places))
    except ReplyError as error:
        return Failure(f"its answer is not believed, because {error}")
    return None


def _without(job: Job[Any], node: int, places: Ids, failure: Failure) -> list[Piece]:
    """Return what to ask a node for again after a failure; what is lost is logged."""
    at = np.flatnonzero(job.clients[places] == failure.client)
    if failure.client is None or not len(at):
        log.warning(
            "%d clients are lost to %s: node %d failed: %s; a run with losses goes on, but cannot "
            "be repeated bit by bit", len(places), job.name, node, failure.reason,
        )  # fmt: skip
        return []
    log.warning(
        "client %d is lost to %s: node %d failed: %s; if it happens again, look at this client's "
        "data, or raise server.round_timeout if it was only slow (also with --resume)",
        failure.client, job.name, node, failure.reason,
    )  # fmt: skip
    pieces = Piece(places[: at[0]], finished=True), Piece(places[at[0] + 1 :])
    return [piece for piece in pieces if len(piece.places)]


def dealt(grid: Grid, nodes: Sequence[int], experiment: Experiment, clients: Ids) -> dict[int, Ids]:
    """Deal clients to nodes as places in the list; nodes without a client are left out."""
    if len(nodes) == 1:
        return {nodes[0]: np.arange(len(clients))} if len(clients) else {}
    work = estimate_work(grid, nodes, experiment, clients)
    blocks = zip(nodes, balanced(work, len(nodes)), strict=True)
    return {node: places for node, places in blocks if len(places)}


def balanced(work: NDArray[np.int64], blocks: int) -> list[Ids]:
    """Deal places to blocks, the largest first, each to the block that has the least work yet.

    Of blocks with the same work, the one with fewer places is next: an estimate may be 0 for all.

    Graham's rule (SIAM J. Appl. Math. 1969): the busiest block has at most 4/3 of the least
    possible.

    Args:
        work: Of each place, ``[places]``.
        blocks: How many to deal to.

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
