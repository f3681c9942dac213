"""Runs over shards of a population: the same bits as over all of it, and what is lost."""

from pathlib import Path
from typing import Any

import pytest

from clients.app import app
from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from fedsi.data.shards import write_shards
from server.configuration import RunConfiguration
from server.nodes import NodesError
from server.round_record import RoundRecord
from server.runs.summary import Summary
from simulations import simulate
from simulations.engines.in_process import InProcessGrid
from simulations.engines.local_node import LocalNode
from simulations.engines.node import node_context
from simulations.engines.serving import served
from simulations.engines.wire import Frame

SMALL = Experiment(
    data={"corpus": "synthetic", "population": 30, "vocabulary_size": 60},
    model={"embedding_size": 4, "hidden_size": 6},
    server={"rounds": 2, "cohort_size": 6, "evaluation_clients": 3, "evaluate_every": 2},
)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "blt": {
        "privacy.mechanism": "blt",
        "privacy.noise_multiplier": 1.0,
        "server.averaging": "uniform",
        "server.sampling": "shuffled",
    },
    "scaffold": {"algorithm.name": "scaffold", "server.averaging": "uniform"},
}


class ShardedGrid(InProcessGrid):
    """One node for each folder, all in this process; counts the messages by their kind."""

    def __init__(self, folders: list[Path]) -> None:
        super().__init__(folders[0])
        self._nodes = {
            node: LocalNode(app, node_context(node, folder))
            for node, folder in enumerate(folders, start=2)
        }
        self.kinds: list[str] = []

    def _send(self, node_id: int, frame: Frame, timeout: float) -> None:
        self.kinds.append(frame.kind)
        super()._send(node_id, frame, timeout)

    def kill(self, node: int) -> None:
        del self._nodes[node]


def run(experiment: Experiment, folders: list[Path]) -> tuple[Summary, list[str]]:
    with ShardedGrid(folders) as grid:
        return served(grid, RunConfiguration(experiment)).summary, grid.kinds


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_shards_has_the_bits_of_a_run_over_the_population(
    kind: str, cache: Path, tmp_path: Path
) -> None:
    experiment = SMALL.updated(KINDS[kind])
    shards = write_shards(prepare(experiment.data, cache), tmp_path, 3)
    summary, kinds = run(experiment, shards)
    expected = simulate(experiment, cache=cache).summary
    assert summary.model_sha256 == expected.model_sha256
    assert summary.heldout_loss == expected.heldout_loss
    # With one node for each shard there is nothing to balance.
    assert not [name for name in kinds if "estimate" in name]


def test_nodes_are_asked_once_for_the_work_of_clients(cache: Path, tmp_path: Path) -> None:
    population = prepare(SMALL.data, cache)
    summary, kinds = run(SMALL, [population, population])
    assert [name for name in kinds if "estimate" in name] == ["query.estimate"]
    assert summary.model_sha256 == simulate(SMALL, cache=cache).summary.model_sha256
    # Two nodes host shard 0, one hosts shard 1.
    first, second = write_shards(population, tmp_path, 2)
    doubled, kinds = run(SMALL, [first, first, second])
    assert [name for name in kinds if "estimate" in name] == ["query.estimate"]
    assert doubled.model_sha256 == summary.model_sha256


def test_clients_of_a_shard_that_is_gone_are_lost(cache: Path, tmp_path: Path) -> None:
    shards = write_shards(prepare(SMALL.data, cache), tmp_path, 2)
    with ShardedGrid(shards) as grid:

        def kill(_: Experiment, record: RoundRecord) -> None:
            if record.round == 1:
                grid.kill(3)

        summary = served(grid, RunConfiguration(SMALL), [kill]).summary
    assert summary.rounds == 2
    assert 0 < summary.clients_lost < 6


def test_a_missing_shard_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.nodes.NODES_TIMEOUT", 0.0)
    population = prepare(SMALL.data, cache)
    first, _, third = write_shards(population, tmp_path, 3)
    with pytest.raises(NodesError, match="no connected node hosts shard 1 of 3"):
        run(SMALL, [first, third])
    with pytest.raises(UserError, match="some nodes host shards of the population and some host"):
        run(SMALL, [first, population])


def test_central_training_needs_the_whole_population(cache: Path, tmp_path: Path) -> None:
    central = SMALL.updated(
        {"algorithm.name": "central", "server.optimizer": "sgd", "server.learning_rate": 1.0}
    )
    shards = write_shards(prepare(central.data, cache), tmp_path, 2)
    with pytest.raises(UserError, match="give a node the whole population"):
        run(central, shards)
