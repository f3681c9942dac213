"""A client, a worker or a cache that fails costs a contribution, not the run."""

import math
import mmap
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.learning.faults import fault_of
from fedsi.messages import LOST, Train
from server.aggregation import train_cohort
from server.cohorts.sampling import draw_cohort
from server.exchange import _records
from server.nodes import NodesError
from server.observers import Observer
from server.round_record import RoundRecord
from server.rounds import initial_server_state
from server.runs.checkpoint import CHECKPOINT
from server.runs.folder import RunFolder
from server.runs.summary import Summary
from simulations import simulate
from simulations.engines.in_process import InProcessGrid
from simulations.engines.processes import own_command, single_threaded_environment
from simulations.engines.shared_memory import share_memory
from simulations.engines.wire import Channel, Frame
from simulations.engines.worker import GRACE_SECONDS, POSITION_BYTES, READY
from tests import faulty_models
from tests.faulty_models import HELDOUT, TRAINING
from tests.server.fake_grid import hosted_by


@pytest.fixture
def faulty(tmp_path: Path) -> Experiment:
    """Return one round in which every client takes part."""
    return Experiment(
        data={
            "vocabulary": str(faulty_models.word_list(tmp_path)),
            "split": "train",
            "heldout_split": "test",
        },
        model={"architecture": "tests.faulty_models:faulty"},
        server={"rounds": 1, "cohort_size": TRAINING, "round_timeout": 6.0},
    )


def run(
    experiment: Experiment,
    cache: Path,
    *faults: str,
    good: int = TRAINING,
    unevaluated: int = 0,
    workers: int = 1,
    out: Path | None = None,
    on_round: Observer | None = None,
) -> Summary:
    return simulate(
        experiment.updated({"server.cohort_size": good + len(faults)}),
        cache=cache,
        corpus=faulty_models.corpus(*faults, good=good, unevaluated=unevaluated),
        workers=workers,
        out=out,
        on_round=on_round,
    ).summary


def harmless(experiment: Experiment) -> Experiment:
    return experiment.updated({"model.architecture": "tests.faulty_models:harmless"})


@pytest.mark.slow
def test_each_client_that_a_worker_fails_at_is_lost_alone(
    faulty: Experiment,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.blocks.PATIENCE", 100)
    faults = ("hang", "crash", "interrupt", "leave")
    expected = run(harmless(faulty), tmp_path, *faults)
    hurt = run(faulty, tmp_path, *faults, workers=2)
    assert hurt.model_sha256 == expected.model_sha256
    assert (expected.clients_failed, expected.clients_lost) == (4, 0)
    assert (hurt.clients_failed, hurt.clients_lost) == (4, 3)
    assert hurt.losses == {"raised": 1, "too_slow": 1, "process_ended": 1, "node_failed": 1}
    assert hurt.clients_trained == TRAINING
    for reason in ("no answer within 6 s", "code -11 (SIGSEGV)", "KeyboardInterrupt"):
        (line,) = [m for m in caplog.messages if reason in m]
        assert "is lost to round 1" in line
        assert "raise server.round_timeout if it was only slow" in line


def test_without_workers_a_client_that_hangs_or_leaves_is_lost_alone(
    faulty: Experiment, tmp_path: Path
) -> None:
    expected = run(harmless(faulty), tmp_path, "hang", "leave")
    short = faulty.updated({"server.round_timeout": 1.0})
    hurt = run(short, tmp_path, "hang", "leave")
    assert hurt.model_sha256 == expected.model_sha256
    assert (hurt.clients_failed, hurt.clients_lost) == (2, 1)
    assert hurt.losses == {"raised": 1, "too_slow": 1}
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_a_round_of_clients_that_all_hang_ends(
    faulty: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(harmless(faulty), tmp_path, "hang")  # the compiler's time would count
    short = faulty.updated({"server.round_timeout": 0.2})
    with pytest.raises(NodesError, match="no node could train in round 1"):
        run(short, tmp_path, *["hang"] * 9, good=0)
    # Three times the limit for one reply, whatever their number.
    assert 2 <= sum("is lost to round 1" in line for line in caplog.messages) <= 3
    assert "more clients are lost to round 1: no time is left" in caplog.text


def test_a_loss_is_in_a_checkpoint_and_not_repeated(faulty: Experiment, tmp_path: Path) -> None:
    several = faulty.updated(
        {"server.round_timeout": 0.5, "server.rounds": 3, "server.evaluate_every": 3}
    )

    def kept(experiment: Experiment, out: Path) -> tuple[list[bool], Summary]:
        """Run, and return of each round but the last whether it left a checkpoint."""
        found: list[bool] = []

        def on_round(_experiment: Experiment, record: RoundRecord) -> None:
            if record.round < 3:
                found.append((out / CHECKPOINT).exists())
                (out / CHECKPOINT).unlink(missing_ok=True)

        return found, run(experiment, tmp_path, "hang", out=out, on_round=on_round)

    found, summary = kept(several, tmp_path / "run")
    assert found == [True, True]
    assert summary.clients_lost == 3
    assert [record.lost for record in RunFolder(tmp_path / "run").records()] == [0, 1, 1, 1]
    patient = harmless(several).updated({"server.round_timeout": 60.0})  # for a busy machine
    found, _ = kept(patient, tmp_path / "harmless")
    assert found == [False, False]


def test_clients_that_cannot_be_evaluated_are_counted(
    faulty: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(faulty, tmp_path)
    part = run(faulty, tmp_path, unevaluated=1)
    assert (whole.clients_unevaluated, part.clients_unevaluated) == (0, 1)
    # The words are the same, so that a mean without zeros is, too.
    assert part.heldout_loss == pytest.approx(whole.heldout_loss, rel=1e-6)
    assert part.metric("accuracy") == whole.metric("accuracy")
    with pytest.raises(NodesError, match="none of the 4 held-out clients could be evaluated"):
        run(faulty, tmp_path, unevaluated=HELDOUT, out=tmp_path / "run")
    assert len([line for line in caplog.messages if "could not be evaluated" in line]) == 3


def test_failing_clients_cost_one_line(
    faulty: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    several = harmless(faulty).updated({"server.rounds": 2})
    run(several, tmp_path, *["crash"] * 3)
    lines = [record for record in caplog.records if "failed in round" in record.message]
    assert [record.exc_info is not None for record in lines] == [True, False]
    assert "RuntimeError: it broke (3 of 15 clients did)" in lines[1].message


def test_a_run_outlives_its_cache(faulty: Experiment, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    several = faulty.updated({"server.rounds": 3, "server.evaluate_every": 1})
    whole = run(several, cache)

    def remove(_experiment: Experiment, _record: RoundRecord) -> None:
        shutil.rmtree(cache, ignore_errors=True)

    assert run(several, cache, on_round=remove).model_sha256 == whole.model_sha256
    assert not cache.exists()


def test_a_worker_that_stops_costs_its_clients_and_one_that_finds_no_population_too(
    smoke: Experiment, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    population = shutil.copytree(prepare(smoke.data, cache), tmp_path / "population")
    description = open_population(population).description
    parameters = initial_server_state(smoke, description).parameters
    cohort = np.arange(8)

    def lost() -> int:
        aggregate = train_cohort(grid, hosted_by([2, 3]), smoke, parameters, cohort, 1)
        assert aggregate.lost == np.isin(aggregate.column("outcome"), list(LOST)).sum()
        return aggregate.lost

    with InProcessGrid(population, workers=2) as grid:
        assert lost() == 0
        shutil.rmtree(population)
        assert lost() == 0
        grid._longest_wait = 2.0
        os.kill(grid.processes()[1], signal.SIGSTOP)
        stopped = lost()
        assert 0 < stopped < 8
        lines = "\n".join(caplog.messages)
        assert f"{stopped} clients are lost to round 1: node 3 failed: it gave no answer" in lines
        assert lost() == stopped
        assert "holds no population" in caplog.text


def _hurt_once(experiment: Experiment, cache: Path, faults: dict[str, float]) -> Experiment:
    """Return the experiment with faults and a seed: each once in the first attempt, then none."""
    training = open_population(prepare(experiment.data, cache)).description.training_clients
    for seed in range(2000):
        hurt = experiment.updated({"seed": seed, **faults})
        cohort = draw_cohort(hurt, training, None, 1, seed).reporting.tolist()
        first, second = ([fault_of(hurt, 1, k, attempt) for k in cohort] for attempt in (0, 1))
        kinds = sorted(f"faults.{fault}" for fault in first if fault)
        if kinds == sorted(faults) and not any(second):
            return hurt
    raise AssertionError("no seed has these faults")


@pytest.mark.slow  # it replaces a worker in each of two runs
@pytest.mark.parametrize(
    ("fault", "reason", "timeout"),
    [("killed", "code -9 (SIGKILL)", 600.0), ("stopped", "no answer within 30 s", 30.0)],
)
def test_a_round_that_loses_a_worker_is_repeated_with_the_same_bits(
    smoke: Experiment,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    reason: str,
    timeout: float,
) -> None:
    private = smoke.updated(
        {
            "server.rounds": 1,
            "server.cohort_size": 6,
            "server.round_timeout": timeout,
            "server.sampling": "shuffled",
            "server.averaging": "uniform",
            "privacy.mechanism": "blt",
            "privacy.clip_norm": 0.5,
            "privacy.noise_multiplier": 1.0,
        }
    )
    hurt = _hurt_once(private, cache, {f"faults.{fault}": 0.2})
    expected = simulate(private.updated({"seed": hurt.seed}), cache=cache).summary
    once = simulate(hurt, cache=cache, workers=2).summary
    assert (once.clients_trained, once.clients_lost, once.rounds_repeated) == (5, 1, 0)
    assert once.model_sha256 != expected.model_sha256
    assert any(reason in line and "is lost to round 1" in line for line in caplog.messages)
    patient = hurt.updated({"server.minimum_replies": 6, "server.repeats": 1})
    again = simulate(patient, cache=cache, workers=2).summary
    assert (again.clients_trained, again.clients_lost, again.rounds_repeated) == (6, 0, 1)
    assert again.model_sha256 == expected.model_sha256


def test_faults_that_would_end_the_run_itself_are_refused(smoke: Experiment, cache: Path) -> None:
    with pytest.raises(UserError, match=r"faults\.killed ends the process .* --workers 2"):
        simulate(smoke.updated({"faults.killed": 0.1}), cache=cache)


def test_a_worker_in_the_middle_of_a_block_ends_with_its_parent(
    faulty: Experiment, tmp_path: Path
) -> None:
    corpus = faulty_models.corpus("hang", good=0)
    population = prepare(faulty.data, tmp_path, corpus=corpus)
    parameters = initial_server_state(faulty, open_population(population).description).parameters
    request = Train(faulty.to_toml(), 1, parameters, np.zeros(1, np.int64), math.inf)
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as file, theirs:
        file.truncate(POSITION_BYTES)
        memories = share_memory(), share_memory()
        inherited = [theirs.fileno(), file.fileno(), *memories]
        worker = subprocess.Popen(
            own_command("simulations.engines.worker", *inherited, 2, population),
            pass_fds=inherited,
            env=single_threaded_environment(),
        )
        with mmap.mmap(file.fileno(), POSITION_BYTES) as place:
            with Connection(ours.detach()) as connection:
                theirs.close()
                assert connection.recv_bytes() == READY
                frame = Frame("train", 1, _records(request, {}))
                Channel(connection, *memories).send(frame, shared=True)
                deadline = time.monotonic() + 60
                while int.from_bytes(place[:], "little") != 0 and time.monotonic() < deadline:
                    time.sleep(0.05)
            # The system closes the sockets of a parent that is killed.
            assert worker.wait(GRACE_SECONDS + 30) == 1
    for memory in memories:
        os.close(memory)
