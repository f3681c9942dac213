import warnings
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import pytest
from flwr.cli.build import build_fab_from_disk

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.data.shards import write_shards
from fedsi.errors import UnfinishedError
from fedsi.learning import client_round
from fedsi.learning.faults import fault_of
from server.cohorts.sampling import draw_cohort
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.benchmarks.loopback import ROOT, Deployment, free_port
from simulations.cli.main import main
from simulations.engines.bundle import PACKAGES, app_files
from simulations.engines.flower_remote import bundle_of
from simulations.engines.table import EngineOptions

SMALL = Experiment(
    data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
    model={"embedding_size": 8, "hidden_size": 12},
    server={"rounds": 4, "cohort_size": 6, "evaluation_clients": 6, "evaluate_every": 2},
)
MB = 2**20


class Foreign(BaseHTTPRequestHandler):
    """A server that answers every request with an empty message, as a SuperLink without a secret
    answers a process that asks for work."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


@pytest.fixture
def foreign() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Foreign)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(b"known to nobody else")
    return path


def test_a_superlink_that_asks_for_no_secret_is_refused(foreign: str, secret: Path) -> None:
    options = EngineOptions(superlink=foreign, superlink_secret=secret, insecure=True)
    with pytest.raises(UserError, match="asks for no secret, so it is not yours or is not safe"):
        simulate(SMALL, engine="deployed", engine_options=options)


def test_a_superlink_that_is_not_there_is_named(secret: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    options = EngineOptions(superlink=address, superlink_secret=secret, insecure=True)
    with pytest.raises(UnfinishedError, match=f"the SuperLink at {address} does not answer"):
        simulate(SMALL, engine="deployed", engine_options=options)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({}, "needs --superlink HOST:PORT"),
    "no secret": ({"superlink": "127.0.0.1:1"}, "needs --superlink-secret FILE"),
    "no port": ({"superlink": "localhost"}, "expected HOST:PORT"),
    "no TLS": (
        {"superlink": "10.1.2.3:8000", "insecure": True},
        "--insecure is allowed only on this machine, and 10.1.2.3 is not; use TLS",
    ),
    "no file": (
        {"superlink": "127.0.0.1:1", "superlink_secret": Path("nowhere")},
        "cannot read the secret nowhere",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsafe_and_missing_options_are_refused(name: str) -> None:
    options, sentence = REFUSED[name]
    with pytest.raises(UserError, match=sentence):
        simulate(SMALL, engine="deployed", engine_options=EngineOptions(**options))


def test_what_concerns_nodes_on_this_machine_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    deployed = ["run", "--preset", "smoke", "--engine", "deployed", "--out", str(tmp_path / "run")]
    assert main([*deployed, "--workers", "2"]) == 2
    assert "workers = 2 has no effect with engine = 'deployed'" in capsys.readouterr().err
    assert main([*deployed, "--per-client", str(tmp_path / "clients.csv")]) == 2
    assert "--per-client has no effect with --engine deployed" in capsys.readouterr().err
    assert main(["run", "--preset", "smoke", "--superlink", "127.0.0.1:1"]) == 2
    assert "superlink has no effect with engine" in capsys.readouterr().err


def test_the_bundle_holds_the_code_of_three_packages_and_is_small() -> None:
    names = names_in(bundle_of(app_files()))
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders - {".info"} == set(PACKAGES)
    assert all(name.endswith(".py") for name in names if name.startswith(PACKAGES))
    assert {"clients/app.py", "server/app.py", "pyproject.toml"} <= names


def test_flower_s_own_command_bundles_the_same_code() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        names = names_in(build_fab_from_disk(ROOT))
    code = {name for name in names if name.endswith(".py")}
    assert code == {name for name in app_files() if name.endswith(".py")}
    data = {"pyproject.toml", "fedsi/data/public_words.json"}
    assert data <= names - code <= {*data, "LICENSE", ".info/CONTENT"}


def names_in(bundle: bytes) -> set[str]:
    assert len(bundle) < 2 * MB
    return set(zipfile.ZipFile(BytesIO(bundle)).namelist())


@pytest.fixture(scope="module")
def shards(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_shards(prepare(SMALL.data, cache), tmp_path_factory.mktemp("shards"), 2)


BLT = {
    "server.round_timeout": 600.0,  # the SuperLink notices the end of a node before
    "server.sampling": "shuffled",
    "server.averaging": "uniform",
    "privacy.mechanism": "blt",
    "privacy.noise_multiplier": 0.5,
}
DEADLY = "faults.killed"


def killed_once(experiment: Experiment, cache: Path) -> tuple[Experiment, list[int]]:
    """Return the experiment with a fault that kills the node of a client, once, and its block.

    The client is neither the first nor the last of its node in round 2, and no other client that
    may be trained has a fault.
    """
    population = open_population(prepare(experiment.data, cache)).description.training_clients
    for seed in range(1000):
        hurt = experiment.updated({"seed": seed, DEADLY: 0.1})
        cohorts = {
            number: draw_cohort(hurt, population, None, number, seed).reporting.tolist()
            for number in range(1, hurt.server.rounds + 1)
        }
        faulty = [
            (number, client)
            for number, cohort in cohorts.items()
            for attempt in range(2 if number == 2 else 1)
            for client in cohort
            if fault_of(hurt, number, client, attempt)
        ]
        if len(faulty) == 1 and faulty[0][0] == 2 and not fault_of(hurt, *faulty[0], 1):
            _, client = faulty[0]
            block = [other for other in cohorts[2] if other % 2 == client % 2]
            if client in block[1:-1] and len(block) < len(cohorts[2]):
                return hurt, block
    raise AssertionError("no seed has this fault")


class Restarting:
    """Kills the SuperNode of the first ``fedsi node`` that ends, and starts both again."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment, self._over = deployment, Event()
        self._thread = Thread(target=self._watch)
        self.restarted = list[int]()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self.restarted and not self._over.wait(0.1):
            for number in range(2):
                if self._deployment.processes[f"node{number}"].poll() is not None:
                    self._deployment.kill(f"supernode{number}")
                    self._deployment.kill(f"node{number}")
                    self._deployment.start_supernode(number)
                    self._deployment.start_node(number)
                    self.restarted.append(number)


@pytest.mark.slow  # Flower notices the end of a SuperNode after a minute
@pytest.mark.parametrize("required", [None, 6], ids=["lost", "repeated"])
def test_a_node_killed_in_the_middle_of_a_block_costs_its_contribution_only(
    shards: list[Path],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    required: int | None,
) -> None:
    """Under BLT the model is that of a run in which the same clients raised an exception, or, if
    the round had to be repeated, of one without faults: noise was drawn once in each round."""
    rounds = {"server.rounds": 4, "server.minimum_replies": required, "server.repeats": 1}
    hurt, block = killed_once(SMALL.updated({**BLT, **rounds}), cache)
    out = tmp_path / "run"
    with Deployment(tmp_path, shards) as deployment, Restarting(deployment) as watch:
        found = simulate(
            hurt, engine="deployed", engine_options=deployment.options(), out=out
        ).summary
    assert watch.restarted == [block[0] % 2]
    lost = [] if required else block
    assert (found.rounds, found.rounds_repeated) == (4, bool(required))
    assert (found.clients_failed, found.clients_lost) == (len(lost), len(lost))
    assert found.losses == ({"process_ended": len(lost)} if lost else {})
    records = RunFolder(out).records()
    assert not any(record.unevaluated for record in records)  # the restarted node took part
    assert [record.process_ended for record in records] == [0, 0, len(lost), 0, 0]
    assert [record.clients for record in records[1:]] == [6, 6 - len(lost), 6, 6]

    def raises(_: Experiment, number: int, client: int, attempt: int = 0) -> str:
        return "raising" if number == 2 and client in lost else ""

    monkeypatch.setattr(client_round, "fault_of", raises)
    alike = hurt.updated({DEADLY: 0.0, "faults.raising": 0.1, "server.minimum_replies": None})
    assert found.model_sha256 == simulate(alike, cache=cache).summary.model_sha256


@pytest.mark.slow
def test_a_run_whose_superlink_is_restarted_ends_with_a_sentence_and_can_be_resumed(
    shards: list[Path], cache: Path, tmp_path: Path
) -> None:
    expected = simulate(SMALL, cache=cache).summary.model_sha256
    out = tmp_path / "run"
    with Deployment(tmp_path, shards) as deployment:

        def restart(_: Experiment, record: RoundRecord) -> None:
            if record.round == 2:
                deployment.kill("superlink")
                deployment.start_superlink()

        with pytest.raises(UnfinishedError, match="run again with --resume --out"):
            simulate(
                SMALL,
                engine="deployed",
                engine_options=deployment.options(),
                out=out,
                on_round=restart,
            )
        assert len(RunFolder(out).records()) == 3
        for number in range(2):  # they end, because the SuperLink forgot them
            deployment.kill(f"supernode{number}")
            deployment.start_supernode(number)
        resumed = simulate(
            SMALL, engine="deployed", engine_options=deployment.options(), out=out, resume=True
        )
    assert resumed.summary.model_sha256 == expected


@pytest.mark.slow
def test_supernodes_that_start_a_process_for_each_message_give_the_same_bits(
    shards: list[Path], cache: Path, tmp_path: Path
) -> None:
    short = SMALL.updated({"server.rounds": 1})
    with Deployment(tmp_path, shards, starts_processes=True) as deployment:
        summary = simulate(short, engine="deployed", engine_options=deployment.options()).summary
    assert summary.model_sha256 == simulate(short, cache=cache).summary.model_sha256
