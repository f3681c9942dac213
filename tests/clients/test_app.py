"""The ClientApp behind Flower's own messages: answers to each request, and refusals."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, RecordDict
from numpy.typing import NDArray

from clients.app import app
from fedsi import Experiment
from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare
from fedsi.learning.block import BlockTrainer
from fedsi.messages import (
    Describe,
    Described,
    Estimate,
    Estimated,
    Evaluate,
    Evaluated,
    FetchedVocabulary,
    FetchVocabulary,
    Outcome,
    Personalise,
    Resolve,
    Resolved,
    Train,
    Trained,
)
from server.exchange import Failure, exchange
from server.replies import ReplyError, check_personalised
from server.rounds import initial_server_state
from simulations.engines.in_process import InProcessGrid
from tests.server.fake_grid import FakeGrid


@pytest.fixture(scope="module")
def place(cache: Path) -> Path:
    return prepare(Experiment(data={"corpus": "synthetic", "population": 30}).data, cache)


@pytest.fixture
def population(place: Path) -> Population:
    return open_population(place)


@pytest.fixture
def experiment() -> Experiment:
    return Experiment(
        data={"corpus": "synthetic", "population": 30},
        model={"embedding_size": 5, "hidden_size": 6},
    )


@pytest.fixture(scope="module")
def grid(place: Path) -> Iterator[InProcessGrid]:
    """Return a grid whose one node lives in this process."""
    with InProcessGrid(place, workers=1) as grid:
        yield grid


def ask(grid: InProcessGrid, request: Any, kind: type[Any]) -> Any:
    """Send a request through Flower's ClientApp and return the checked answer, or the failure."""
    (node,) = grid.get_node_ids()
    ((_, answer),) = exchange(grid, {node: request}, kind, timeout=600)
    return answer


def start_of(experiment: Experiment, population: Population) -> NDArray[np.float32]:
    return initial_server_state(experiment, population.description).parameters


def test_a_node_says_what_it_hosts(
    grid: InProcessGrid, population: Population, experiment: Experiment
) -> None:
    text = experiment.to_toml()
    described = ask(grid, Describe(text), Described)
    assert json.loads(described.description) == asdict(population.description)
    fetched = ask(grid, FetchVocabulary(text), FetchedVocabulary)
    assert json.loads(fetched.content) == population.vocabulary().file_text()
    resolved = ask(grid, Resolve(text, json.dumps(["nobody", "4"])), Resolved)
    assert resolved.clients.tolist() == [-1, 4]
    estimated = ask(grid, Estimate(text, np.array([3, 1])), Estimated)
    cap = experiment.examples_per_pass
    assert estimated.work.tolist() == [population.work(3, cap), population.work(1, cap)]


def test_a_block_is_the_sum_of_its_clients_each_trained_alone(
    grid: InProcessGrid, population: Population, experiment: Experiment
) -> None:
    request = Train(
        experiment.to_toml(),
        2,
        start_of(experiment, population),
        np.array([5, 2, 9]),
        clip_norm=0.01,
    )
    together = ask(grid, request, Trained)
    assert isinstance(together, Trained), together
    alone = [ask(grid, replace(request, clients=np.array([k])), Trained) for k in (5, 2, 9)]
    assert np.array_equal(together.sums, sum(one.sums for one in alone))
    assert np.array_equal(together.rows, np.concatenate([one.rows for one in alone]))
    assert (together.rows[:, 0] == Outcome.AGGREGATED).all()
    assert together.sums.any()


def test_evaluation_is_that_of_the_population(
    grid: InProcessGrid, population: Population, experiment: Experiment
) -> None:
    start = start_of(experiment, population)
    answer = ask(grid, Evaluate(experiment.to_toml(), start, np.array([28, 29])), Evaluated)
    trainer = BlockTrainer(experiment, population)
    expected = trainer.evaluate(torch.from_numpy(start), [28, 29])
    assert np.array_equal(answer.rows, expected)
    tuned = ask(grid, Personalise(experiment.to_toml(), start, np.array([28, 29])), Evaluated)
    assert np.array_equal(tuned.rows, trainer.personalise(torch.from_numpy(start), [28, 29]))
    check_personalised(tuned, experiment, 2, 10_000)
    columns = expected.shape[1]
    for place, lie in ((0, -1.0), (columns, 1e9), (columns + 1, 0.0), (2, -5.0)):
        rows = tuned.rows.copy()
        rows[0, place] = lie
        with pytest.raises(ReplyError):
            check_personalised(Evaluated(rows), experiment, 2, 10_000)
    with pytest.raises(ReplyError, match="rows has the shape"):
        check_personalised(answer, experiment, 2, 10_000)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"clip_norm": 0.0}, "a clip norm must be positive, received 0.0"),
        ({"clip_norm": math.nan}, "a clip norm must be positive, received nan"),
        ({"parameters": np.zeros(7, np.float32)}, "parameters, received 7"),
        ({"experiment": "server.rounds = 'many'"}, "server.rounds"),
        ({"parameters": np.zeros(7)}, "part parameters of Train is not"),
    ],
)
def test_requests_that_cannot_be_served_are_answered_with_the_reason(
    grid: InProcessGrid,
    population: Population,
    experiment: Experiment,
    changes: dict[str, Any],
    expected: str,
) -> None:
    parameters = start_of(experiment, population)
    request = Train(experiment.to_toml(), 1, parameters, np.array([1]), math.inf)
    answer = ask(grid, replace(request, **changes), Trained)
    assert isinstance(answer, Failure)
    assert expected in answer.reason


def test_a_node_that_is_given_no_population_prepares_the_corpus_of_the_experiment(
    experiment: Experiment, population: Population
) -> None:
    context = Context(1, 1, {}, RecordDict(), {})
    grid = FakeGrid({1: lambda message: app(message, context)})
    ((_, answer),) = exchange(grid, {1: Describe(experiment.to_toml())}, Described, timeout=600)
    assert isinstance(answer, Described)
    assert json.loads(answer.description) == asdict(population.description)
