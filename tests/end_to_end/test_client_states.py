"""Runs whose clients keep vectors: killed and resumed, on any workers, with rejected clients."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.client_states import ClientStates
from fedsi.errors import DamagedError
from fedsi.learning.block import BlockTrainer
from fedsi.learning.client_round import Added, ClientRounds
from fedsi.messages import Outcome
from server.round_record import RoundRecord
from simulations import simulate

KILLED = """
import os, sys
from pathlib import Path
from fedsi import Experiment
from fedsi.client_states import ClientStates
from fedsi.errors import DamagedError
from server.runs.folder import RunFolder
from simulations import simulate

toml, out, cache, name, workers = sys.argv[1:]
owner = RunFolder if hasattr(RunFolder, name) else ClientStates
before, calls = getattr(owner, name), []

def killed(self, *arguments, **named):
    calls.append(name)
    if len(calls) == 3:
        os.kill(os.getpid(), 9)
    return before(self, *arguments, **named)

setattr(owner, name, killed)
simulate(Experiment.from_toml(toml), out=out, cache=Path(cache), workers=int(workers))
"""


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(
        data={"corpus": "synthetic", "population": 12, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        algorithm={"name": "scaffold"},
        client={"max_steps": 2},
        server={
            "rounds": 5,
            "cohort_size": 5,
            "averaging": "uniform",
            "evaluation_clients": 1,
            "evaluate_every": 5,
        },
    )


@pytest.fixture(scope="module")
def whole(experiment: Experiment, cache: Path) -> str:
    return str(simulate(experiment, cache=cache).summary.model_sha256)


def test_bytes_sent_returned_and_kept_are_reported(experiment: Experiment, cache: Path) -> None:
    found = simulate(experiment, cache=cache).summary
    vector = 4 * found.trained_parameters
    assert found.algorithm == "scaffold"
    assert found.download_bytes == found.upload_bytes == 5 * 5 * 2 * vector
    assert 5 < found.clients_with_state <= found.training_clients
    assert found.kept_bytes == found.clients_with_state * vector
    plain = simulate(experiment.updated({"algorithm.name": "fed_avg"}), cache=cache).summary
    assert plain.download_bytes == 5 * 5 * vector
    assert (plain.clients_with_state, plain.kept_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("killed_at", "workers"),
    [pytest.param("sync", 2, marks=pytest.mark.slow), ("append", 1), ("replace", 1)],
)
def test_a_killed_run_goes_on_with_the_same_bits(
    experiment: Experiment, whole: str, killed_at: str, workers: int, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = [experiment.to_toml(), str(out), str(cache), killed_at, str(workers)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((out / "clients").iterdir())
    resumed = simulate(experiment, out=out, cache=cache, resume=True)
    assert resumed.summary.model_sha256 == whole
    assert len(list((out / "clients").iterdir())) == resumed.summary.clients_with_state
    longer = experiment.updated({"server.rounds": 6})
    more = simulate(longer, out=out, cache=cache, resume=True).summary
    assert more.model_sha256 == simulate(longer, cache=cache).summary.model_sha256


def test_only_current_states_are_kept_and_a_damaged_one_ends_the_run(
    experiment: Experiment, cache: Path, tmp_path: Path
) -> None:
    clients: set[int] = set()
    train = BlockTrainer.train

    def noting(self: BlockTrainer, start: Any, members: Any, *rest: Any, **named: Any) -> Any:
        clients.update(members)
        return train(self, start, members, *rest, **named)

    def look(_: Experiment, record: RoundRecord) -> None:
        states = {path.name.partition("-")[0] for path in (tmp_path / "clients").iterdir()}
        if record.round == 4:
            raise KeyboardInterrupt
        assert states == {str(client) for client in clients}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockTrainer, "train", noting)
        with pytest.raises(KeyboardInterrupt):
            simulate(experiment, out=tmp_path, cache=cache, on_round=look)
    for path in (tmp_path / "clients").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DamagedError, match=r"the state .* is damaged or missing"):
        simulate(experiment, out=tmp_path, cache=cache, resume=True)


def test_a_client_whose_contribution_does_not_count_keeps_its_old_state(
    experiment: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rejection in its second round, a client continues with its first round's vectors."""
    seen: dict[int, list[np.ndarray[Any, Any]]] = {}
    kept: dict[int, list[np.ndarray[Any, Any]]] = {}
    begin, write = ClientRounds.begin, ClientStates.write

    def noting(self: ClientRounds, *arguments: Any) -> Any:
        part = begin(self, *arguments)
        at.append(part.client)
        seen.setdefault(at[-1], []).append(part.given.kept["control"].copy())
        return part

    def writing(self: ClientStates, client: int, number: int, vectors: Any) -> None:
        kept.setdefault(client, []).append(vectors["control"].copy())
        write(self, client, number, vectors)

    add = BlockTrainer._add

    def rejecting(self: BlockTrainer, *arguments: Any) -> Any:
        if len(seen[at[-1]]) == 2:
            rejected.add(at[-1])
            return Added(Outcome.NOT_FINITE, norm=0.0, clipped=False)
        return add(self, *arguments)

    rejected: set[int] = set()
    at: list[int] = []
    monkeypatch.setattr(ClientRounds, "begin", noting)
    monkeypatch.setattr(ClientStates, "write", writing)
    monkeypatch.setattr(BlockTrainer, "_add", rejecting)
    summary = simulate(experiment, cache=cache).summary
    assert summary.clients_rejected == len(rejected) > 0
    third = [client for client in rejected if len(seen[client]) > 2]
    assert third
    for client in third:
        assert np.array_equal(seen[client][2], kept[client][0])


def test_disk_beyond_the_limit_is_refused_and_said(experiment: Experiment, cache: Path) -> None:
    tiny = experiment.updated({"algorithm.state_limit": 1e-6})
    sentence = (
        r"keeps 0.0105 MB for each client that takes part, about 10 clients in 5 rounds, so "
        r"0.000158 GB of disk, more than algorithm.state_limit = 1e-06 GB; use fewer rounds"
    )
    with pytest.raises(UserError, match=sentence):
        simulate(tiny, cache=cache)
