"""The Ray engine: nodes that die or hang, what is left behind, and errors before it starts."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.messages import LOST
from server.aggregation import Aggregate, train_cohort
from server.configuration import RunConfiguration
from server.nodes import Hosting
from server.rounds import initial_server_state
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.engines.processes import inherited_environment, own_command
from simulations.engines.ray_cluster import ray_cluster
from simulations.engines.ray_engine import RayGrid, kept_where
from simulations.engines.table import EngineOptions
from tests import faulty_models
from tests.end_to_end.test_interrupted import is_running, wait_for
from tests.faulty_models import TRAINING
from tests.processes import children_of
from tests.server.fake_grid import hosted_by
from tests.test_docs import fenced

TWO = EngineOptions(nodes=2)


@pytest.fixture(autouse=True)
def nothing_left_to_the_next_test() -> Iterator[None]:
    """Collect the files that Ray drops without closing them, whose warnings are errors."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_without_ray_a_sentence_says_how_to_install_it(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=re.escape("pip install 'fedsi[ray]'")):
        simulate(smoke, engine="ray", cache=cache)


def test_more_actors_than_clients_are_refused(smoke: Experiment, cache: Path) -> None:
    options = EngineOptions(nodes=20)
    with pytest.raises(UserError, match="workers = 60 is not allowed"):
        simulate(smoke, engine="ray", engine_options=options, workers=3, cache=cache)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: "),
        ("ray://head:10001", "the address of a Ray cluster is HOST:PORT or auto, not ray://head"),
        ("head", "the address of a Ray cluster is HOST:PORT or auto, not head"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(
    address: str, sentence: str, smoke: Experiment, cache: Path
) -> None:
    options = EngineOptions(nodes=2, ray_address=address)
    with pytest.raises(UserError, match=re.escape(sentence)):
        simulate(smoke, engine="ray", engine_options=options, cache=cache)


@pytest.fixture
def folder(ray_address: str) -> Iterator[Path]:
    """Connect to a cluster of this machine, and return the connection's folder."""
    with ray_cluster(ray_address, processes=2) as folder:
        yield folder


def pid(grid: RayGrid, node: int) -> int:
    import ray

    reply = grid._nodes[node]._actor.run.remote(lambda: lambda **_: os.getpid(), None, "", None)
    found: int = ray.get(reply, timeout=60)[1]
    return found


def until_ready(grid: RayGrid, node: int) -> None:
    assert grid._nodes[node].is_ready(60)
    assert list(grid.get_node_ids()) == [2, 3]


@pytest.mark.slow
def test_an_actor_that_dies_or_stops_costs_its_clients_and_is_replaced(
    smoke: Experiment, cache: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    population = prepare(smoke.data, cache)
    parameters = initial_server_state(smoke, open_population(population).description).parameters
    cohort = np.arange(8)

    def trained(nodes: list[int], hosting: Hosting | None = None) -> Aggregate:
        hosting = hosting or hosted_by(nodes)
        aggregate = train_cohort(grid, hosting, smoke, parameters, cohort, 1)
        assert aggregate.lost == np.isin(aggregate.column("outcome"), list(LOST)).sum()
        return aggregate

    with RayGrid(population, folder, nodes=2, longest_wait=60) as grid:
        whole = trained([2, 3])
        assert whole.lost == 0
        os.kill(pid(grid, 3), signal.SIGKILL)
        hurt = trained([2, 3])
        assert 0 < hurt.lost < 8
        assert "node 3 failed: its Ray actor ended" in caplog.text
        assert hurt.sums.tobytes() != whole.sums.tobytes()
        # Until it has been replaced, the other node trains all clients.
        nodes = list(grid.get_node_ids())
        assert trained(nodes).sums.tobytes() == whole.sums.tobytes()
        until_ready(grid, 3)
        both = hosted_by([2, 3])
        assert trained([2, 3], both).sums.tobytes() == whole.sums.tobytes()
        # The work is remembered, so the stopped actor is not asked for it but for the training.
        os.kill(pid(grid, 2), signal.SIGSTOP)
        grid._longest_wait = 2.0
        started = time.monotonic()
        assert 0 < trained([2, 3], both).lost < 8
        assert time.monotonic() - started < 40
        assert "node 2 failed: it gave no answer within 2 s" in caplog.text
        grid._longest_wait = 60.0
        until_ready(grid, 2)
        assert trained([2, 3]).sums.tobytes() == whole.sums.tobytes()


@pytest.mark.slow
def test_clients_of_a_node_that_cannot_be_started_again_are_trained_by_the_others(
    smoke: Experiment,
    cache: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    population = prepare(smoke.data, cache)
    parameters = initial_server_state(smoke, open_population(population).description).parameters
    with RayGrid(population, folder, nodes=2) as grid:
        monkeypatch.setattr("simulations.engines.ray_node.start", os.kill)  # of wrong arguments
        os.kill(pid(grid, 3), signal.SIGKILL)
        train_cohort(grid, hosted_by([2, 3]), smoke, parameters, np.arange(8), 1)
        assert not grid._nodes[3].is_ready(60)
        for _ in range(2):
            assert list(grid.get_node_ids()) == [2]
        (line,) = [line for line in caplog.messages if "cannot be started" in line]
        assert line.startswith("node 3 cannot be started: ")
        (line,) = [line for line in caplog.messages if "without node" in line]
        assert line == "without node(s) [3]: the others train all clients"
        assert train_cohort(grid, hosted_by([2]), smoke, parameters, np.arange(8), 1).lost == 0


@pytest.mark.slow
def test_each_client_that_an_actor_fails_at_is_lost_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr("server.blocks.PATIENCE", 100)
    faults = ("hang", "crash", "interrupt", "leave")
    experiment = Experiment(
        data={
            "vocabulary": str(faulty_models.word_list(tmp_path)),
            "split": "train",
            "heldout_split": "test",
        },
        model={"architecture": "tests.faulty_models:faulty"},
        server={"rounds": 1, "cohort_size": TRAINING + len(faults), "round_timeout": 20.0},
    )
    corpus = faulty_models.corpus(*faults)
    harmless = experiment.updated({"model.architecture": "tests.faulty_models:harmless"})
    expected = simulate(harmless, cache=tmp_path, corpus=corpus).summary
    hurt = simulate(
        experiment, cache=tmp_path, corpus=corpus, engine="ray", engine_options=TWO
    ).summary
    assert hurt.model_sha256 == expected.model_sha256
    assert (hurt.clients_failed, hurt.clients_lost) == (4, 3)
    assert hurt.clients_trained == TRAINING
    for reason in ("no answer within 20 s", "its Ray actor ended", "KeyboardInterrupt"):
        (line,) = [m for m in caplog.messages if reason in m]
        assert "is lost to round 1" in line


@pytest.mark.slow
def test_scaffold_is_refused_on_machines_that_do_not_share_the_run_s_folder(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")

    @contextmanager
    def elsewhere(_: object) -> Iterator[Path]:
        yield tmp_path / "elsewhere" / "file"

    scaffold = smoke.updated({"algorithm.name": "scaffold", "server.averaging": "uniform"})
    monkeypatch.setattr("simulations.engines.ray_engine.kept_where", elsewhere)
    with pytest.raises(UserError, match=r"does not have the folder .*elsewhere, where the clients"):
        simulate(scaffold, engine="ray", engine_options=TWO, cache=cache)


def test_the_place_of_clients_vectors_is_marked_while_a_run_goes_on(
    smoke: Experiment, tmp_path: Path
) -> None:
    scaffold = smoke.updated({"algorithm.name": "scaffold", "server.averaging": "uniform"})
    with kept_where(RunConfiguration(scaffold, tmp_path / "new" / "run")) as shared:
        assert shared is not None
        assert shared.is_file()
        assert shared.parent == tmp_path
    assert not list(tmp_path.iterdir())
    with kept_where(RunConfiguration(smoke, tmp_path)) as shared:
        assert shared is None


def descendants(parent: int) -> list[int]:
    children = children_of(parent)
    return children + [one for child in children for one in descendants(child)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_command_leaves_no_process_and_goes_on_with_the_same_bits(
    number: signal.Signals, cache: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    here, home, out = (tmp_path / name for name in ("here", "home", "run"))
    here.mkdir()
    home.mkdir()
    for name in ("server.py", "random.py"):  # a user's files, which must not be imported
        (here / name).write_text("raise RuntimeError('this is the wrong file')\n")
    before = set(Path(tempfile.gettempdir()).glob("fedsi-ray-*"))
    command = own_command("simulations.cli.main", "run", "--preset", "smoke", "--cache", cache)
    changes = ["--set=server.rounds=100", "--set=server.evaluate_every=5", f"--out={out}"]
    process = subprocess.Popen(
        [*command, *changes, "--engine=ray", "--nodes=2"],
        cwd=here,
        env={**inherited_environment(), "HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((out / "checkpoint.safetensors").exists, process)
    processes = descendants(process.pid)
    assert len(processes) > 3
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    wait_for(lambda: not any(is_running(one) for one in processes))
    assert not (home / ".flwr").exists()
    left = set(Path(tempfile.gettempdir()).glob("fedsi-ray-*")) - before
    if number == signal.SIGKILL:
        assert process.returncode == -number
        for folder in left:
            shutil.rmtree(folder)
    else:
        assert process.returncode == 1
        expected = f"error: interrupted; continue with: fedsi run --resume --out {out}"
        assert err.splitlines()[-1] == expected
        assert not left
    experiment = RunFolder(out).experiment()
    resumed = simulate(experiment, out=out, cache=cache, resume=True).summary
    assert resumed.model_sha256 == simulate(experiment, cache=cache).summary.model_sha256


@pytest.mark.slow
def test_a_model_of_the_working_folder_is_imported_and_what_it_prints_is_not_output(
    cache: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    model = fenced("docs/own-model.md", "python")[0]
    (tmp_path / "my_model.py").write_text(f"{model}\nprint('imported')\n")
    command = own_command("simulations.cli.main", "run", "--preset", "smoke", "--cache", cache)
    changes = ["--set=server.rounds=1", "--set=model.architecture=my_model:Gru", "--json"]
    done = subprocess.run(
        [*command, *changes, "--engine=ray", "--nodes=2", "--workers=2"],
        cwd=tmp_path,
        env=inherited_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "imported" in done.stderr
    summary = json.loads("".join(x for x in done.stdout.splitlines() if x != "imported"))
    assert summary["clients_trained"] == 10
    assert summary["provenance"]["workers"] == 4
