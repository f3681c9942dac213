import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedsi import Experiment
from fedsi.messages import Resolved, to_parts
from server.nodes import NodesError, find_clients
from tests.server.fake_grid import FakeGrid, Node, nonsense, raising, silent


def answering(clients: list[int]) -> Node:
    arrays, values = to_parts(Resolved(np.array(clients)))
    named = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    content = RecordDict({"arrays": named, "values": ConfigRecord(values)})
    return lambda message: Message(content, reply_to=message)


def test_the_first_node_that_answers_is_believed() -> None:
    grid = FakeGrid(
        {1: raising, 2: silent, 3: nonsense, 4: answering([7]), 5: answering([2, -1, 0])}
    )
    assert find_clients(grid, [1, 2, 3, 4, 5], Experiment(), 8, ["c", "x", "a"]).tolist() == [
        2,
        -1,
        0,
    ]


def test_without_an_answer_the_run_cannot_start() -> None:
    grid = FakeGrid({1: raising, 2: silent})
    with pytest.raises(NodesError, match="no node could look up the clients of the trace"):
        find_clients(grid, [1, 2], Experiment(), 8, ["a"])
