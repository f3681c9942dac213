import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from server import blocks
from server.blocks import Job, answers
from server.exchange import Failure
from tests.server.fake_grid import FakeGrid

LIMIT = 10.0


class SlowNodes:
    """Nodes that reply at once, but hang for the whole time limit at some clients."""

    def __init__(self, hanging: set[int]) -> None:
        self.hanging = hanging
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def exchange(
        self, _grid: Any, requests: Mapping[int, list[int]], _answer: Any, timeout: float, **_: Any
    ) -> Iterator[tuple[int, Any]]:
        stuck = {n: [k for k in clients if k in self.hanging] for n, clients in requests.items()}
        self.now += timeout if any(stuck.values()) else 0.1
        for node, clients in requests.items():
            yield node, Failure("it hangs", stuck[node][0]) if stuck[node] else clients


def answered(
    monkeypatch: pytest.MonkeyPatch, dealt: dict[int, list[int]], hanging: set[int]
) -> list[int]:
    nodes = SlowNodes(hanging)
    monkeypatch.setattr(blocks, "exchange", nodes.exchange)
    monkeypatch.setattr(blocks, "time", nodes)
    clients = np.arange(100, 112)
    job: Job[list[int]] = Job(
        name="round 1",
        clients=clients,
        request=lambda wanted: wanted.tolist(),
        answer=list,
        check=lambda reply, count: None,
        timeout=LIMIT,
    )
    places = {node: np.array(block) for node, block in dealt.items()}
    found = []
    for at, reply in answers(FakeGrid({}), places, job):
        assert clients[at].tolist() == reply
        found += reply
    assert nodes.now < (blocks.PATIENCE + 1) * LIMIT
    return sorted(found)


def test_clients_that_hang_are_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answered(monkeypatch, {1: [0, 1, 2, 3, 4, 5], 2: [6, 7, 8, 9, 10, 11]}, {103, 106})
    assert found == [k for k in range(100, 112) if k not in {103, 106}]


def test_what_was_finished_is_kept_when_no_time_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = answered(monkeypatch, {1: list(range(12))}, {101, 103, 105, 107, 109})
    assert found[:2] == [100, 102]
    assert not set(found) & {101, 103, 105, 107, 109}
    assert "more clients are lost to round 1: no time is left" in caplog.text


def test_nodes_that_always_hang_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(monkeypatch, {1: list(range(12))}, set(range(100, 112))) == []
