import warnings
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk

from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from fedsi.data.shards import write_shards
from fedsi.errors import UnfinishedError
from server.rounds import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.engines.bundle import PACKAGES, app_files
from simulations.engines.flower_remote import bundle_of
from simulations.engines.table import EngineOptions
from tests.deployment import ROOT, Deployment, free_port

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


@pytest.mark.slow
def test_a_restarted_node_costs_its_contribution_only(
    shards: list[Path], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Deployment(tmp_path, shards) as deployment:

        def restart(_: Experiment, record: RoundRecord) -> None:
            if record.round == 1:
                deployment.kill("supernode1")
                deployment.kill("node1")
                deployment.start_supernode(1)
                deployment.start_node(1)

        patient = SMALL.updated({"server.round_timeout": 60.0, "server.rounds": 6})
        summary = simulate(
            patient, engine="deployed", engine_options=deployment.options(), on_round=restart
        ).summary
    assert summary.rounds == 6
    assert 0 < summary.clients_lost < 6 * 6
    assert summary.clients_lost == summary.clients_failed


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
