"""The process that answers a SuperNode's messages: no wait of it is without a limit."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import ErrorCode

from clients.position import position
from fedsi.errors import UnfinishedError
from fedsi.experiment import Experiment
from fedsi.messages import Describe, Evaluate
from server.exchange import _records
from server.nodes import PREPARING_TIMEOUT
from simulations.benchmarks.loopback import free_port
from simulations.engines import flower_remote
from simulations.engines.flower_private import give_id, identify
from simulations.engines.supernode import limit_of, serve_supernode

TOML = Experiment().updated({"server.round_timeout": 7.0}).to_toml()
CONTEXT = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def message(request: Any, kind: str) -> Message:
    identify(1, 2)
    made = Message(_records(request, {}), dst_node_id=2, message_type=kind)
    give_id(made, "1")
    return made


def test_a_supernode_that_does_not_come_is_given_up() -> None:
    told: list[str] = []
    with pytest.raises(UnfinishedError, match=r"was not there for 0\.1 s; start it"):
        serve_supernode(f"127.0.0.1:{free_port()}", b"x", told.append, longest_wait=0.1)
    assert len(told) == 1


def test_a_client_that_hangs_costs_its_time_limit_and_is_named() -> None:
    def hang(_message: Message, _context: Context) -> Message:
        position.move(5)
        time.sleep(60)
        raise AssertionError

    request = message(Describe(TOML), "query")
    run: Any = SimpleNamespace(fab_version="1")
    started = time.monotonic()
    app: Any = hang
    reply, reason = flower_remote._reply(app, request, CONTEXT, run, "1", 0.3)
    assert time.monotonic() - started < 30
    assert reason == "it gave no answer within 0.3 s (client 5)"
    assert reply.error.code == ErrorCode.REPLY_MESSAGE_UNAVAILABLE


def test_the_limit_is_that_of_the_experiment() -> None:
    evaluate = Evaluate(TOML, np.zeros(1, np.float32), np.zeros(1, np.int64))
    assert limit_of(message(evaluate, "evaluate")) == 7.0
    assert limit_of(message(Describe(TOML), "query")) == PREPARING_TIMEOUT
