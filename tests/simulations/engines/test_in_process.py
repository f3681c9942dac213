"""The in-process engine: the same bits on any number of nodes, and nodes that fail or die."""

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from fedsi import Experiment
from fedsi.data.prepare import open_population, prepare
from fedsi.messages import APP_CRASHED, NODE_ENDED, REPLY_MISSING, Describe, Described, Outcome
from server.aggregation import train_cohort
from server.cohorts.sampling import draw_cohort
from server.exchange import Failure, exchange
from server.nodes import Hosts, find_clients
from server.rounds import initial_server_state
from simulations import simulate
from simulations.engines import flower_private, in_process, worker_node
from simulations.engines.in_process import InProcessGrid
from simulations.engines.worker_node import WorkerNode
from tests.server.fake_grid import hosted_by


def test_the_private_names_are_those_of_the_version_we_pinned() -> None:
    assert metadata.version("flwr").startswith("1.41."), "look at flower_private.py again"
    flower_private.identify(run_id=5, node_id=6)
    message = Message(RecordDict(), dst_node_id=7, message_type="train")
    flower_private.give_id(message, "m1")
    assert (message.metadata.run_id, message.metadata.src_node_id) == (5, 6)
    assert message.metadata.message_id == "m1"
    codes = (REPLY_MISSING, NODE_ENDED, APP_CRASHED)
    assert codes == (
        ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
        ErrorCode.NODE_UNAVAILABLE,
        ErrorCode.CLIENT_APP_CRASHED,
    )


@pytest.mark.parametrize("architecture", ["cifg", pytest.param("si_cifg", marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bits(
    smoke: Experiment, cache: Path, architecture: str
) -> None:
    experiment = smoke.updated({"model.architecture": architecture})
    one = simulate(experiment, workers=1, cache=cache).summary
    two = simulate(experiment, workers=2, cache=cache).summary
    assert one.model_sha256 == two.model_sha256
    for key in ("heldout", "train_loss", "tokens_trained"):
        assert getattr(one, key) == getattr(two, key)


@pytest.fixture
def grid(smoke: Experiment, cache: Path) -> Iterator[InProcessGrid]:
    with InProcessGrid(prepare(smoke.data, cache), workers=2) as grid:
        yield grid


def processes(grid: InProcessGrid) -> list[int]:
    nodes = [node for node in grid._nodes.values() if isinstance(node, WorkerNode)]
    return [node._process.pid for node in nodes]


def test_a_dead_worker_costs_its_clients_and_is_replaced(
    smoke: Experiment,
    grid: InProcessGrid,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = sorted(grid.get_node_ids())
    description = Hosts(grid, smoke).description
    parameters = initial_server_state(smoke, description).parameters
    experiment = smoke.updated({"server.cohort_size": 8})
    cohort = draw_cohort(experiment, description.training_clients, None, 1, 0).reporting
    whole = train_cohort(grid, hosted_by(nodes), smoke, parameters, cohort, 1)
    # The first node is asked how to balance the cohort; the other one is found dead in training.
    monkeypatch.setattr("simulations.engines.ended.oom_kills", lambda: 10**9)  # the kernel's count
    os.kill(processes(grid)[1], signal.SIGKILL)
    hurt = train_cohort(grid, hosted_by(nodes), smoke, parameters, cohort, 1)
    assert 0 < (hurt.rows[:, 0] == Outcome.PROCESS_ENDED).sum() < 8
    assert "its process ended with code -9 (SIGKILL)" in caplog.text
    assert "for lack of memory meanwhile; use fewer --workers" in caplog.text
    again = train_cohort(grid, hosted_by(nodes), smoke, parameters, cohort, 1)
    assert again.sums.tobytes() == whole.sums.tobytes()
    assert hurt.sums.tobytes() != whole.sums.tobytes()
    os.kill(processes(grid)[0], signal.SIGKILL)
    unhurt = train_cohort(grid, hosted_by(nodes), smoke, parameters, cohort, 1)
    assert unhurt.sums.tobytes() == whole.sums.tobytes()


def test_what_a_client_app_raises_is_an_error_reply(
    grid: InProcessGrid, caplog: pytest.LogCaptureFixture
) -> None:
    message = Message(RecordDict(), dst_node_id=2, message_type="query")
    (reply,) = grid.send_and_receive([message])
    assert reply.has_error()
    assert "KeyError" in str(reply.error.reason)
    unknown = Message(RecordDict(), dst_node_id=3, message_type="train.unknown")
    (reply,) = grid.send_and_receive([unknown])
    assert "No train function registered" in str(reply.error.reason)


def test_nodes_know_the_clients_by_their_ids(smoke: Experiment, grid: InProcessGrid) -> None:
    nodes = sorted(grid.get_node_ids())
    assert find_clients(grid, hosted_by(nodes), smoke, 200, ["7", "none", "199"]).tolist() == [
        7,
        -1,
        199,
    ]


def test_closing_ends_the_processes(smoke: Experiment, cache: Path) -> None:
    with InProcessGrid(prepare(smoke.data, cache), workers=2) as grid:
        pids = processes(grid)
        assert len(set(pids)) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_node_starts_no_process(smoke: Experiment, cache: Path) -> None:
    population = prepare(smoke.data, cache)
    with InProcessGrid(population, workers=1) as grid:
        assert processes(grid) == []
        description = Hosts(grid, smoke).description
    assert description == open_population(population).description
    assert list(exchange(grid, {}, Described, 1.0)) == []


def test_workers_that_hang_before_they_are_ready_and_ignore_signals_are_ended(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like one whose OpenBLAS waits for memory."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    monkeypatch.setattr(worker_node, "own_command", lambda *_: [sys.executable, "-c", deaf])
    monkeypatch.setattr(worker_node, "START_SECONDS", 0.2)
    began = time.monotonic()
    with InProcessGrid(prepare(smoke.data, cache), workers=2) as grid:
        requests = dict.fromkeys(grid.get_node_ids(), Describe(smoke.to_toml()))
        replies = dict(exchange(grid, requests, Described, 60.0))
        left = processes(grid)
    assert time.monotonic() - began < 30
    assert all(isinstance(reply, Failure) for reply in replies.values())
    assert all("ended with code -9 (SIGKILL)" in str(reply) for reply in replies.values())
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_workers_end_if_the_system_refuses_one_more(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def start(*arguments: Any) -> WorkerNode:
        if started:
            raise OSError(errno.EMFILE, "Too many open files")
        node = WorkerNode(*arguments)
        started.append(node.process_id)
        return node

    monkeypatch.setattr(in_process, "WorkerNode", start)
    population = prepare(smoke.data, cache)
    with pytest.raises(OSError, match="Too many open files"):
        InProcessGrid(population, 3)
    assert not Path(f"/proc/{started[0]}").exists()
