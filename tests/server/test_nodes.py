import contextvars
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from clients import pool
from clients.app import app
from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from fedsi.kernels.cpu import tiles
from fedsi.messages import Resolved, to_parts
from server.nodes import Hosts, NodesError, find_clients
from simulations.engines.node import node_context
from tests.own_models import BASE, TRAINS_UP
from tests.server.fake_grid import FakeGrid, Node, hosted_by, nonsense, raising, silent


def answering(clients: list[int]) -> Node:
    arrays, values = to_parts(Resolved(np.array(clients)))
    named = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    content = RecordDict({"arrays": named, "values": ConfigRecord(values)})
    return lambda message: Message(content, reply_to=message)


def test_the_first_node_that_answers_is_believed() -> None:
    grid = FakeGrid(
        {1: raising, 2: silent, 3: nonsense, 4: answering([7]), 5: answering([2, -1, 0])}
    )
    assert find_clients(
        grid, hosted_by([1, 2, 3, 4, 5]), Experiment(), 8, ["c", "x", "a"]
    ).tolist() == [
        2,
        -1,
        0,
    ]


def test_without_an_answer_the_run_cannot_start(caplog: pytest.LogCaptureFixture) -> None:
    grid = FakeGrid({1: raising, 2: silent})
    with pytest.raises(NodesError, match="no node could look up the clients of the trace"):
        find_clients(grid, hosted_by([1, 2]), Experiment(), 8, ["a"])
    assert "node 1 could not look up clients: it broke" in caplog.text


def machine(population: Path, *, trains_up: bool = True, base: float = 1.0) -> Node:
    """Return a node on a machine where ``of_the_machine`` builds a different model."""
    context = contextvars.copy_context()
    context.run(TRAINS_UP.set, trains_up)
    context.run(BASE.set, base)

    def node(message: Message) -> Message:
        pool.forget()  # what another machine built
        reply = context.run(app, message, node_context(2, population))
        pool.forget()
        return reply

    return node


OF_THE_MACHINE = "tests.own_models:of_the_machine"
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "frozen": (
        {"trains_up": False},
        "up.weight is not trained there and trained with the shape [8, 2] here",
    ),
    "values": ({"base": 2.0}, "base.weight, which is not trained, has other values"),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_node_builds_the_server_s_model(
    name: str, smoke: Experiment, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = smoke.updated({"model.architecture": OF_THE_MACHINE})
    population = prepare(experiment.data, cache)
    other, sentence = MODELS[name]
    grid = FakeGrid({1: machine(population), 2: machine(population, **other)})
    with pytest.raises(UserError, match="node 2 builds another model"):
        Hosts(grid, experiment)
    unwell = grid.nodes.pop(2)
    hosts = Hosts(grid, experiment)
    grid.nodes[3] = unwell
    assert hosts.connected().nodes == [1]
    assert (
        f"node 3 builds another model {OF_THE_MACHINE} than the server: {sentence}" in caplog.text
    )


def test_a_node_without_the_vectors_of_own_products_is_refused(
    smoke: Experiment,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    well = machine(prepare(smoke.data, cache))

    def old(message: Message) -> Message | None:
        with monkeypatch.context() as patch:
            patch.setattr(tiles, "HAS_WIDE_VECTORS", False)
            return well(message)

    monkeypatch.setattr(tiles, "HAS_WIDE_VECTORS", True)
    own, grid = smoke.updated({"client.products": "own"}), FakeGrid({1: well, 2: old})
    sentence = (
        "node 2 has a processor without AVX-512, which client.products=own needs; start it on one "
        "that has it, or begin a run with client.products=torch"
    )
    with pytest.raises(UserError, match=f"^{sentence}$"):
        Hosts(grid, own)
    hosts = Hosts(FakeGrid({1: well}), own)
    hosts._grid = grid
    assert hosts.connected().nodes == [1]
    assert f"{sentence}; the node is not used" in caplog.text
    assert Hosts(grid, smoke.updated({"client.products": "torch"})).connected().nodes == [1, 2]
    monkeypatch.setattr(tiles, "HAS_WIDE_VECTORS", False)
    with pytest.raises(UserError, match=r"client\.products=own needs a processor with AVX-512"):
        pool._trainer(str(prepare(smoke.data, cache)), own.to_toml())


def test_a_node_that_cannot_build_the_model_is_not_used(smoke: Experiment, cache: Path) -> None:
    experiment = smoke.updated({"model.architecture": OF_THE_MACHINE})
    well = machine(prepare(experiment.data, cache))

    def without_a_model(message: Message) -> Message | None:
        return (raising if message.metadata.message_type.endswith("inventory") else well)(message)

    assert Hosts(FakeGrid({1: well, 2: without_a_model}), experiment).connected().nodes == [1]
    with pytest.raises(NodesError, match="no node could build the model"):
        Hosts(FakeGrid({2: without_a_model}), experiment)
