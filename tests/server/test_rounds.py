import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from clients.app import app
from fedsi import Experiment
from fedsi.data.population import Description
from fedsi.data.prepare import open_population, prepare
from server.cohorts.availability import Trace
from server.endings import has_diverged
from server.nodes import NodesError
from server.rounds import initial_server_state, run_rounds
from simulations.engines.node import node_context
from tests.server.fake_grid import FakeGrid, ended, hosted_by, raising

DESCRIPTION = Description(
    corpus="test",
    corpus_sha256="",
    content_digest="",
    training_clients=5,
    heldout_clients=1,
    training_examples=5,
    heldout_examples=1,
    vocabulary_size=1000,
    vocabulary_source="count",
    sequence_length=20,
    unigram_loss=5.0,
)


def test_a_round_in_which_nobody_could_be_trained_ends_the_run(
    smoke: Experiment, cache: Path
) -> None:
    description = open_population(prepare(smoke.data, cache)).description
    grid = FakeGrid({2: raising})
    start = initial_server_state(smoke, description)
    rounds = run_rounds(grid, lambda: hosted_by([2]), smoke, description, None, start, seed=0)
    with pytest.raises(NodesError, match="no node could train in round 1"):
        next(rounds)


def test_a_round_without_a_cohort_asks_nobody_and_moves_nothing(smoke: Experiment) -> None:
    nobody = Trace(np.array([0]), np.array([1e5]), np.array([2e5]), 2e5)
    plain = smoke.updated({"server.optimizer": "sgd", "server.cohort_size": 2})
    start = initial_server_state(plain, DESCRIPTION)
    state, record = next(
        run_rounds(FakeGrid({}), lambda: hosted_by([2]), plain, DESCRIPTION, nobody, start, seed=0)
    )
    assert state.round_number == 1
    assert np.array_equal(state.parameters, start.parameters)
    assert (record.clients, record.rejected, record.failed, record.dropped) == (0, 0, 0, 0)
    assert math.isnan(record.train_loss)
    assert not has_diverged(record, Experiment(), DESCRIPTION)


def test_a_node_that_took_the_place_of_another_evaluates_the_round_in_which_that_one_ended(
    smoke: Experiment, cache: Path
) -> None:
    store = prepare(smoke.data, cache)
    description = open_population(store).description

    def node(message: Message) -> Message:
        return app(message, node_context(message.metadata.dst_node_id, store))

    grid = FakeGrid({2: node, 3: ended, 4: node})
    connected = iter([[2, 3], [2, 4]])
    once = smoke.updated({"server.rounds": 1})
    start = initial_server_state(once, description)
    rounds = run_rounds(
        grid, lambda: hosted_by(next(connected)), once, description, None, start, seed=0
    )
    _, record = next(rounds)
    assert record.clients > 0
    assert record.process_ended > 0
    assert record.process_ended == record.failed
    assert record.unevaluated == 0


def test_an_empty_update_steps_the_server_optimizer(smoke: Experiment) -> None:
    nobody = Trace(np.array([0]), np.array([1e5]), np.array([2e5]), 2e5)
    momentum = smoke.updated({"server.optimizer": "sgdm", "server.momentum": 0.5})
    start = initial_server_state(momentum, DESCRIPTION)
    moving = replace(start, optimizer={"first": np.ones_like(start.parameters)})
    state, _ = next(
        run_rounds(
            FakeGrid({}), lambda: hosted_by([2]), momentum, DESCRIPTION, nobody, moving, seed=0
        )
    )
    assert (state.optimizer["first"] == 0.5).all()
    expected = start.parameters + np.float32(0.5 * momentum.server.learning_rate)
    assert np.allclose(state.parameters, expected)


def test_the_initial_state_follows_from_the_seed(smoke: Experiment) -> None:
    one, two = (initial_server_state(smoke, DESCRIPTION) for _ in range(2))
    other = initial_server_state(smoke.updated({"seed": 1}), DESCRIPTION)
    assert np.array_equal(one.parameters, two.parameters)
    assert not np.array_equal(one.parameters, other.parameters)
