"""The server's view of nodes: connections, populations, and queries about clients."""

import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.data.population import Description, Shard
from fedsi.errors import UnfinishedError, UserError
from fedsi.experiment import Experiment
from fedsi.messages import (
    Describe,
    Described,
    Estimate,
    Estimated,
    FetchedVocabulary,
    FetchVocabulary,
    Resolve,
    Resolved,
    TakeInventory,
    TakenInventory,
)
from fedsi.models.build import build_model
from fedsi.models.inventory import Inventory, difference, inventory
from server.exchange import Failure, exchange
from server.replies import (
    ReplyError,
    checked_clients,
    checked_description,
    checked_inventory,
    checked_vocabulary,
    checked_work,
)

log = logging.getLogger(__name__)

NODES_TIMEOUT = 60.0
"""Seconds to wait for the first node."""
PREPARING_TIMEOUT = 6 * 3600.0
"""Seconds to wait for the first nodes to open their population, which they may have to build from a
corpus of any size. An engine whose nodes are given a built population waits less."""

_STAGES: dict[type, str] = {
    Described: "describe its population",
    TakenInventory: "build the model",
    FetchedVocabulary: "send its vocabulary",
    Resolved: "look up clients",
    Estimated: "estimate the work of clients",
}
"""Requests by the type of their reply, for the log."""

_Answer = TypeVar("_Answer")
_Checked = TypeVar("_Checked")


class NodesError(UnfinishedError):
    """The nodes cannot serve this experiment at all."""


def wait_for_nodes(grid: Grid) -> list[int]:
    """Return the ids of the connected nodes in ascending order, waiting for the first one.

    Raises:
        NodesError: No node connected in time.
    """
    deadline = time.monotonic() + NODES_TIMEOUT
    while not (nodes := sorted(grid.get_node_ids())):
        if time.monotonic() > deadline:
            raise NodesError(f"no node connected within {NODES_TIMEOUT:.0f} seconds")
        time.sleep(0.5)
    return nodes


def ask(
    grid: Grid,
    requests: Mapping[int, Any],
    answer: type[_Answer],
    timeout: float,
    checked: Callable[[_Answer], _Checked],
) -> Iterator[tuple[int, _Checked]]:
    """Send one request to each node and yield (node, reply) as replies arrive.

    Nodes that fail, send an invalid reply or none are logged and yield nothing.

    Args:
        grid: Flower's connection to the nodes.
        requests: The message for each node; all of one type.
        answer: The type of the replies.
        timeout: Seconds to wait for the replies.
        checked: Returns the content of a reply, or raises ``ReplyError``.
    """
    for node, reply in exchange(grid, requests, answer, timeout):
        if isinstance(reply, Failure):
            log.warning("node %d could not %s: %s", node, _STAGES[answer], reply.reason)
            continue
        try:
            said = checked(reply)
        except ReplyError as error:
            log.warning("node %d sent an invalid reply: %s", node, error)
            continue
        yield node, said


def fetch_descriptions(
    grid: Grid, nodes: Sequence[int], experiment: Experiment, timeout: float
) -> dict[int, tuple[Description, Shard, str]]:
    """Ask nodes for what ``checked_description`` returns; invalid replies are left out."""
    requests = dict.fromkeys(nodes, Describe(experiment.to_toml()))
    return dict(ask(grid, requests, Described, timeout, checked_description))


def fetch_inventories(
    grid: Grid, nodes: Sequence[int], experiment: Experiment
) -> dict[int, Inventory]:
    """Ask nodes for the inventory of the model they build; invalid replies are left out."""
    requests = dict.fromkeys(nodes, TakeInventory(experiment.to_toml()))
    timeout = experiment.server.round_timeout
    return dict(ask(grid, requests, TakenInventory, timeout, checked_inventory))


@dataclass(frozen=True)
class Hosting:
    """The connected nodes of a round, and the shard of the population that each hosts."""

    shards: Mapping[int, Shard]
    """The shard of each node."""
    clients: int = 0
    """Clients of the population."""
    work: dict[int, int] = field(default_factory=dict)
    """The work of clients as nodes have estimated it, remembered for the whole run."""

    @property
    def nodes(self) -> list[int]:
        """The nodes' ids, ascending."""
        return sorted(self.shards)

    def by_shard(self) -> dict[Shard, list[int]]:
        """Return the nodes of each shard, ascending."""
        found: dict[Shard, list[int]] = defaultdict(list)
        for node in self.nodes:
            found[self.shards[node]].append(node)
        return dict(sorted(found.items()))


class Hosts:
    """The nodes that host a run's population, including those that connect during the run.

    Nodes import a user's model themselves, so their models are compared with the server's. fedsi's
    own models follow from the experiment.

    Args:
        grid: Flower's connection to the nodes.
        experiment: The configuration.

    Raises:
        NodesError: No node connected, none could open the population, or none build the model.
        UserError: The nodes host different populations, or one cannot follow ``client.products``,
            or builds another model.
    """

    def __init__(self, grid: Grid, experiment: Experiment) -> None:
        self._grid = grid
        self._experiment = experiment
        self._hosting: dict[int, Shard | None] = {}
        self._work: dict[int, int] = {}
        described = self._described()
        if not described:
            raise NodesError("no node could open the population; see the log above")
        for node, (_, _, lacking) in described.items():
            if lacking:
                raise UserError(self._unable(node, lacking))
        (self.description, shard, _), *others = described.values()
        if any(other != self.description for other, _, _ in others):
            raise UserError(
                "the nodes host different populations; start each of them with the same corpus "
                "and the same data settings"
            )
        if any(other.count != shard.count for _, other, _ in others):
            raise UserError(
                "some nodes host shards of the population and some host all of it, or the shards "
                "were made with different --into; give all nodes shards of one kind"
            )
        self._shards = shard.count
        self._model: Inventory | None = None
        if experiment.model.is_imported:
            self._model = inventory(build_model(experiment, self.description.vocabulary_size))
        found = self._other_models(list(described))
        if not found:
            raise NodesError("no node could build the model; see the log above")
        if other := next(filter(None, found.values()), None):
            raise UserError(other)
        self._hosting = {node: described[node][1] for node in found}

    def connected(self) -> Hosting:
        """Return the connected nodes, after asking new ones for their population.

        Raises:
            NodesError: There are none.
        """
        nodes = wait_for_nodes(self._grid)
        self._ask([node for node in nodes if node not in self._hosting])
        shards = {node: shard for node in nodes if (shard := self._hosting.get(node))}
        if not shards:
            raise NodesError("none of the connected nodes hosts the population of this run")
        clients = self.description.training_clients + self.description.heldout_clients
        return Hosting(shards, clients, self._work)

    def _described(self) -> dict[int, tuple[Description, Shard, str]]:
        """Ask nodes for their populations until every shard is hosted.

        Raises:
            NodesError: A shard is hosted by no node in time.
        """
        deadline = time.monotonic() + NODES_TIMEOUT
        found: dict[int, tuple[Description, Shard, str]] = {}
        while True:
            new = [node for node in wait_for_nodes(self._grid) if node not in found]
            found |= fetch_descriptions(self._grid, new, self._experiment, PREPARING_TIMEOUT)
            hosted = {shard for _, shard, _ in found.values()}
            count = min(shard.count for shard in hosted) if hosted else 1
            missing = [index for index in range(count) if Shard(index, count) not in hosted]
            if not hosted or not missing:
                return found
            if time.monotonic() > deadline:
                raise NodesError(
                    f"no connected node hosts {Shard(missing[0], count)} of the population; start "
                    f"a SuperNode with the folder shard-{missing[0]} as its population"
                )
            time.sleep(0.5)

    def _ask(self, new: list[int]) -> None:
        """Check whether new nodes can be used; those that do not reply are asked next round."""
        # A node that is not ready in this time must not delay the round.
        timeout = self._experiment.server.round_timeout
        described = fetch_descriptions(self._grid, new, self._experiment, timeout)
        for node, (description, shard, lacking) in described.items():
            if lacking:
                log.warning("%s; the node is not used", self._unable(node, lacking))
                self._hosting[node] = None
            elif description != self.description or shard.count != self._shards:
                log.warning("node %d hosts another population and is not used", node)
                self._hosting[node] = None
        hosts = [node for node in described if node not in self._hosting]
        for node, other in self._other_models(hosts).items():
            if other:
                log.warning("%s; the node is not used", other)
            self._hosting[node] = None if other else described[node][1]

    def _unable(self, node: int, lacking: str) -> str:
        """Return why a node cannot compute with the run's matrix products."""
        return (
            f"node {node} has a processor without {lacking}, which client.products="
            f"{self._experiment.client.products} needs; start it on one that has it, or begin a "
            "run with client.products=torch"
        )

    def _other_models(self, nodes: list[int]) -> dict[int, str | None]:
        """Return, for each node that replies, how its model differs from the server's, or None."""
        if self._model is None:
            return dict.fromkeys(nodes)
        sentences: dict[int, str | None] = {}
        for node, built in fetch_inventories(self._grid, nodes, self._experiment).items():
            other = difference(self._model, built)
            sentences[node] = other and (
                f"node {node} builds another model {self._experiment.model.architecture} than the "
                f"server: {other}; give both the same module, and the same files that it reads"
            )
        return sentences


def fetch_vocabulary(grid: Grid, nodes: Sequence[int], experiment: Experiment) -> tuple[str, str]:
    """Fetch the vocabulary from the first node that replies.

    Args:
        grid: Flower's connection to the nodes.
        nodes: Their ids; all host the same population.
        experiment: The configuration.

    Returns:
        The name of the vocabulary's file, and its text.

    Raises:
        NodesError: No node replied.
    """
    request, timeout = FetchVocabulary(experiment.to_toml()), experiment.server.round_timeout
    for node in nodes:
        for _, file in ask(grid, {node: request}, FetchedVocabulary, timeout, checked_vocabulary):
            return file
    raise NodesError("no node could send its vocabulary; see the log above")


def find_clients(
    grid: Grid, hosting: Hosting, experiment: Experiment, population: int, names: Sequence[str]
) -> NDArray[np.int64]:
    """Look up the indices of clients, using the first node of each shard that replies.

    Args:
        grid: Flower's connection to the nodes.
        hosting: The nodes; all host the same population or shards of it.
        experiment: The configuration.
        population: Number of clients in the population.
        names: Ids of clients in the corpus.

    Returns:
        Indices in the population, -1 for unknown ids: ``[names]``.

    Raises:
        NodesError: No node of a shard replied.
    """
    request = Resolve(experiment.to_toml(), json.dumps(names))
    timeout = experiment.server.round_timeout
    checked = partial(checked_clients, names=len(names), population=population)
    found: list[NDArray[np.int64]] = []
    for nodes in hosting.by_shard().values():
        replies = (ask(grid, {node: request}, Resolved, timeout, checked) for node in nodes)
        clients = next((clients for reply in replies for _, clients in reply), None)
        if clients is None:
            raise NodesError("no node could look up the clients of the trace; see the log above")
        found.append(clients)
    return _first_known(found)


def _first_known(found: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Combine what the shards know; of a client with two entries the training one, as in a store.

    Training clients have the smaller indices.
    """
    unknown = np.iinfo(np.int64).max
    least = np.min([np.where(clients < 0, unknown, clients) for clients in found], axis=0)
    return np.where(least == unknown, -1, least).astype(np.int64)


def estimate_work(
    grid: Grid,
    nodes: Sequence[int],
    experiment: Experiment,
    clients: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """Estimate the work of some clients, using the first node that replies.

    Returns:
        Approximate number of target tokens of a pass over each client, ``[clients]``; None if no
        node replied.
    """
    request = Estimate(experiment.to_toml(), clients)
    timeout = experiment.server.round_timeout
    checked = partial(checked_work, clients=len(clients))
    for node in nodes:
        for _, work in ask(grid, {node: request}, Estimated, timeout, checked):
            return work
    return None
