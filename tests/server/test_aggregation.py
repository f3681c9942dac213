"""The server's handling of replies, with the real ClientApp and functions as nodes."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clients.app import app
from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.messages import ARRAYS, Described, Outcome
from server.aggregation import Aggregate, evaluate_clients, train_cohort
from server.blocks import balanced
from server.exchange import _records
from server.nodes import Hosts, NodesError, wait_for_nodes
from server.rounds import initial_server_state
from simulations.engines.node import node_context
from tests.server.fake_grid import FakeGrid, Node, hosted_by, nonsense, raising, silent

COHORT = np.array([5, 3, 8, 1, 0, 9, 7], dtype=np.int64)


@pytest.fixture
def population(smoke: Experiment, cache: Path) -> Path:
    return prepare(smoke.data, cache)


def honest(population: Path) -> Node:
    return lambda message: app(message, node_context(2, population))


def described(text: str) -> Node:
    """Return a node that replies with this description of its population."""
    answer = Described(text)
    return lambda message: Message(_records(answer, {}), reply_to=message)


def train(
    smoke: Experiment, population: Path, nodes: dict[int, Node], *, backwards: bool = False
) -> Aggregate:
    state = initial_server_state(smoke, open_population(population).description)
    grid = FakeGrid(nodes, backwards=backwards)
    return train_cohort(grid, hosted_by(nodes), smoke, state.parameters, COHORT, 1)


def test_neither_the_number_of_nodes_nor_their_order_changes_a_bit(
    smoke: Experiment, population: Path
) -> None:
    node = honest(population)
    one = train(smoke, population, {2: node})
    assert np.abs(one.means()["update"]).max() > 0
    for count in (2, 3, 5):
        for backwards in (False, True):
            many = train(
                smoke, population, dict.fromkeys(range(2, 2 + count), node), backwards=backwards
            )
            assert np.array_equal(one.sums, many.sums)
            assert np.array_equal(one.rows, many.rows)


def wrong_size(population: Path) -> Node:
    def node(message: Message) -> Message:
        reply = app(message, node_context(2, population))
        sent = reply.content.array_records[ARRAYS]
        arrays = {name: array.numpy() for name, array in sent.items()}
        arrays["sums"] = arrays["sums"][:-1]
        cut = ArrayRecord({name: Array(value) for name, value in arrays.items()})
        return Message(RecordDict({**reply.content, ARRAYS: cut}), reply_to=message)

    return node


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (raising, Outcome.NODE_FAILED),
        (silent, Outcome.TOO_SLOW),
        (nonsense, Outcome.NODE_FAILED),
        ("wrong size", Outcome.NODE_FAILED),
    ],
)
def test_a_failed_node_costs_its_own_clients_only(
    smoke: Experiment, population: Path, fault: Node | str, kind: Outcome
) -> None:
    bad = wrong_size(population) if isinstance(fault, str) else fault
    result = train(smoke, population, {2: honest(population), 3: bad})
    outcomes = result.rows[:, 0].tolist()
    opened = open_population(population)
    work = [opened.work(int(client), smoke.examples_per_pass) for client in COHORT]
    kept, lost = balanced(np.array(work), 2)
    assert min(len(kept), len(lost)) > 0
    assert {outcomes[place] for place in kept} == {Outcome.AGGREGATED}
    assert {outcomes[place] for place in lost} == {kind}
    state = initial_server_state(smoke, opened.description)
    alone = train_cohort(
        FakeGrid({2: honest(population)}), hosted_by([2]), smoke, state.parameters, COHORT[kept], 1
    )
    assert np.array_equal(result.sums, alone.sums)


@given(st.lists(st.integers(0, 1000), max_size=30), st.integers(1, 5))
def test_blocks_are_balanced(sizes: list[int], count: int) -> None:
    work = np.array(sizes, dtype=np.int64)
    blocks = balanced(work, count)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(work)))
    loads = [int(work[block].sum()) for block in blocks]
    # The node that got the last client of the busiest block had the least work before.
    busiest = blocks[int(np.argmax(loads))]
    smallest = int(work[busiest].min()) if len(busiest) else 0
    assert max(loads) - smallest <= min(loads)
    assert max(loads) <= sum(loads) / count + max(sizes, default=0)


def test_all_nodes_failing_is_an_error(smoke: Experiment, population: Path) -> None:
    with pytest.raises(NodesError, match="no node could train in round 1"):
        train(smoke, population, {2: raising, 3: silent})


def test_evaluation_keeps_the_order_of_clients(smoke: Experiment, population: Path) -> None:
    state = initial_server_state(smoke, open_population(population).description)
    clients = np.arange(180, 200)
    node = honest(population)
    one, two = (
        evaluate_clients(
            FakeGrid(nodes), hosted_by(nodes), smoke, state.parameters, clients, 1, 10_000
        )
        for nodes in ({2: node}, {2: node, 3: node})
    )
    assert np.array_equal(one, two)
    assert one[:, 0].tolist() == [
        len(open_population(population).examples(int(k))) for k in clients
    ]


def test_clients_of_a_node_that_fails_are_not_evaluated(
    smoke: Experiment, population: Path
) -> None:
    state = initial_server_state(smoke, open_population(population).description)
    clients = np.arange(180, 200)
    node = honest(population)

    def rows(*nodes: Node) -> NDArray[np.float64]:
        grid = FakeGrid(dict(enumerate(nodes)))
        return evaluate_clients(
            grid, hosted_by(grid.nodes), smoke, state.parameters, clients, 1, 10_000
        )

    whole, part = rows(node), rows(node, raising)
    assert 0 < len(part) < len(whole)
    assert {tuple(row) for row in part} < {tuple(row) for row in whole}
    assert part[:, 1].all()
    for bad in (raising, silent, nonsense):
        with pytest.raises(NodesError, match="no node could evaluate"):
            rows(bad)


def test_nodes_must_host_one_population(smoke: Experiment, population: Path, cache: Path) -> None:
    other = prepare(smoke.updated({"data.population": 50}).data, cache)
    grid = FakeGrid({2: honest(population), 3: honest(other)})
    with pytest.raises(UserError, match="nodes host different populations"):
        Hosts(grid, smoke)
    for bad in (raising, silent, nonsense, described("{}"), described("[")):
        with pytest.raises(NodesError, match="no node could open"):
            Hosts(FakeGrid({2: bad}), smoke)


def test_nodes_come_and_go(smoke: Experiment, population: Path, cache: Path) -> None:
    other = prepare(smoke.updated({"data.population": 50}).data, cache)
    grid = FakeGrid({2: honest(population), 3: raising})
    hosts = Hosts(grid, smoke)
    assert hosts.connected().nodes == [2]
    grid.nodes[3] = honest(population)
    grid.nodes[4] = honest(other)
    assert hosts.connected().nodes == [2, 3]
    del grid.nodes[2]
    assert hosts.connected().nodes == [3]
    del grid.nodes[3]
    with pytest.raises(NodesError, match="none of the connected nodes"):
        hosts.connected()


def test_waiting_for_nodes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.nodes.NODES_TIMEOUT", 0.0)
    with pytest.raises(NodesError, match="no node connected"):
        wait_for_nodes(FakeGrid({}))
    assert wait_for_nodes(FakeGrid({3: silent, 2: silent})) == [2, 3]
