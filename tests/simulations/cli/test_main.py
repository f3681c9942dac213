"""The command with real arguments and files: exit codes and one-sentence errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsi import Experiment
from server.runs.folder import RunFolder
from simulations.cli.main import main

TINY = ["--preset", "smoke", "--set", "server.rounds=2", "--set", "server.cohort_size=4"]
COMMAND = [sys.executable, "-m", "simulations.cli.main"]
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("COLUMNS", "120")


def run(cache: Path, *arguments: str) -> int:
    return main(["run", "--cache", str(cache), *arguments])


def test_json_is_alone_on_standard_output(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cache, *TINY, "--out", "r", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads(Path("r/summary.json").read_text())
    assert captured.out.count("\n") == 1
    assert "round 2 of 2" in captured.err


def test_a_table_and_where_the_results_are(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cache, *TINY, "--verbose") == 0
    captured = capsys.readouterr()
    (folder,) = Path("results").iterdir()
    assert str(folder) in captured.err
    assert json.loads((folder / "summary.json").read_text())["model_sha256"] in captured.out


def test_a_file_with_overrides(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.toml").write_text(Experiment(seed=3).to_toml())
    tiny = ["--set", "data.corpus=synthetic", "--set", "server.rounds=1", "--json"]
    tiny += ["--set", "server.evaluation_clients=3", "--set", "server.cohort_size=2"]
    assert run(cache, "my.toml", *tiny, "--out", "r") == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3
    assert RunFolder(Path("r")).experiment().seed == 3


def jsonl(path: str, *rows: dict[str, object]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bad_inputs() -> dict[str, tuple[list[str], str]]:
    corpus = "data.corpus="
    trace = ["--set", "devices.availability=trace", "--set"]
    return {
        "missing file": (["none.toml"], "cannot read the experiment none.toml: No such file"),
        "a folder": (["."], "cannot tell the format of "),
        "malformed TOML": (["bad.toml"], "bad.toml is not valid TOML"),
        "not text": (["binary.toml"], "binary.toml is not UTF-8 text"),
        "unknown key in a file": (["key.toml"], "key.toml: there is no key server.round; did you"),
        "unknown key": (
            ["--set", "server.cohort=3"],
            "no key server.cohort; did you mean",
        ),
        "no value": (["--set", "server.rounds"], "--set takes KEY=VALUE"),
        "unknown preset": (
            ["--preset", "smoky"],
            "preset = 'smoky' is not allowed: did you mean smoke? expected one of ",
        ),
        "file and preset": (["a.toml", "--preset", "smoke"], "not both"),
        "architecture": (
            ["--set", "model.architecture=elman"],
            "is not allowed: expected one of cifg, si_cifg, ",
        ),
        "optimizer": (["--set", "server.optimizer=lion"], "server.optimizer = 'lion'"),
        "negative size": (["--set", "model.hidden_size=-1"], "model.hidden_size = -1"),
        "zero": (["--set", "server.cohort_size=0"], "server.cohort_size = 0"),
        "workers": (["--workers", "0"], "Invalid value for '--workers'"),
        "unknown option": (["--wrokers", "2"], "No such option"),
        "key as an option": (
            ["--rounds", "2"],
            "with --set, as in --set server.rounds=VALUE",
        ),
        "help": (["--preset", "smoke", "x", "y"], "run --help"),
        "missing data": (["none.csv"], "there is no file none.csv: name an experiment (.toml) or"),
        "preset as a file": (["Smoke"], "did you mean --preset smoke?"),
        "another file": (["text.doc"], "neither an experiment, which is TOML, nor a corpus"),
        "archive": (["a.tar.gz"], "an archive of a kind that is not read"),
        "section": (["--set", "model=lstm"], "model is a section of keys, not a key; give one of"),
        "yes": (["--set", "model.tied_output=yes"], "'yes' is not allowed: expected true or false"),
        "line of TOML": (["line.toml"], "column 5): 'seed: 1'"),
        "value of TOML": (
            ["none-value.toml"],
            "'seed = None' (values are as 0.3, true",
        ),
        "address": (
            ["--set", corpus + "https://a.b/c.csv"],
            "is an address, and corpora are",
        ),
        "cohort": (
            ["--preset", "smoke", "--set", "server.cohort_size=181"],
            "server.cohort_size = 181 is more than the 180 training clients",
        ),
        "no trace": (
            ["--preset", "smoke", *trace, "devices.trace=none.csv"],
            "cannot read the trace none.csv: No such file",
        ),
        "bad trace": (
            ["--preset", "smoke", *trace, "devices.trace=trace.csv"],
            "trace.csv must be a client's id and two times in seconds",
        ),
        "separation": (
            [
                "--preset",
                "smoke",
                "--set",
                "server.sampling=shuffled",
                "--set",
                "server.min_separation=19",
            ],
            "more than the 18 rounds in which cohorts of 10 pass over the 180",
        ),
        "population": (
            ["--preset", "smoke", "--set", "data.population=1"],
            "data.population = 1 is not allowed",
        ),
        "huge model": (
            ["--preset", "smoke", "--set", "model.hidden_size=1000000"],
            " GiB of memory and this machine has ",
        ),
        "missing corpus": (
            ["--set", corpus + "none.jsonl"],
            "there is no corpus none.jsonl",
        ),
        "format": (["--set", corpus + "text.doc"], "text.doc (no known ending"),
        "no usable client": (
            ["--set", corpus + "empty.jsonl"],
            "is empty: there is no row to",
        ),
        "empty text": (
            ["--set", corpus + "blank.jsonl"],
            "no usable client: 2 row(s) read, all left out (2 without text",
        ),
        "column": (["--set", corpus + "cols.jsonl"], "no column 'user' or 'user_id' or"),
        "UTF-8": (["--set", corpus + "latin.csv"], "latin.csv is not valid UTF-8"),
        "a synthetic column": (
            ["--preset", "smoke", "--set", "data.user_column=name"],
            "data.user_column has no effect with data.corpus=synthetic",
        ),
        "resume and overwrite": (
            ["--preset", "smoke", "--resume", "--overwrite", "--out", "none"],
            "give either --resume or --overwrite, not both",
        ),
        "unknown section": (
            ["--set", "foo=1"],
            "allowed are algorithm.*, client.*, data.*, devices.*",
        ),
        "nothing to resume": (["--resume", "--out", "none"], "holds no run to resume"),
        "two corpora": (
            ["blank.jsonl", "--set", "data.corpus=synthetic"],
            "two corpora are given, blank.jsonl and --set data.corpus; leave out one",
        ),
        "a study": (["study.toml"], "study.toml is a study; run it with: fedsi study study.toml"),
        "runs": (["runs"], "runs holds runs, such as one, and no texts; name a file or folder"),
        "out is a file": (["--preset", "smoke", "--out", "bad.toml"], "bad.toml is a file"),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_is_one_sentence_and_exit_code_2(
    name: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.toml").write_text("server = [1,\n")
    Path("binary.toml").write_bytes(b"\xff\x00")
    Path("key.toml").write_text("[server]\nround = 3\n")
    Path("empty.jsonl").write_text("")
    Path("line.toml").write_text("[server]\nseed: 1\n")
    Path("none-value.toml").write_text("seed = None\n")
    Path("text.doc").write_text("text")
    Path("a.tar.gz").write_text("text")
    Path("trace.csv").write_text("client,start,end\n3,9,1\n")
    jsonl("blank.jsonl", {"user": "a", "text": ""}, {"user": "b", "text": None})
    jsonl("cols.jsonl", {"name": "a", "text": "b"})
    Path("latin.csv").write_bytes("user,text\na,né\n".encode("latin-1"))
    Path("study.toml").write_text('[[axes]]\nkey = "client.epochs"\nvalues = [1]\n')
    Path("runs/one").mkdir(parents=True)
    Path("runs/one/experiment.toml").write_text("")
    before = sorted(Path().iterdir())
    arguments, expected = bad_inputs()[name]
    assert run(cache, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (*progress, sentence) = captured.err.splitlines()
    assert all(line.endswith("...") for line in progress)
    assert sentence.startswith("error: ")
    assert expected in sentence
    assert "Traceback" not in captured.err
    assert sorted(Path().iterdir()) == before


def test_a_finished_run_is_not_overwritten_unless_asked(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cache, *TINY, "--out", "r") == 0
    before = {path: path.read_bytes() for path in Path("r").iterdir()}
    assert run(cache, *TINY, "--out", "r", "--set", "seed=1") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("r").iterdir()} == before
    assert run(cache, *TINY, "--out", "r", "--set", "seed=1", "--overwrite") == 0
    assert RunFolder(Path("r")).experiment().seed == 1


def test_resume_needs_nothing_but_the_folder(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cache, *TINY, "--out", "r") == 0
    told = "the run in r was finished before; nothing was trained"
    assert told not in capsys.readouterr().err
    assert run(cache, "--resume", "--out", "r", "--json") == 0
    assert told in capsys.readouterr().err


def wait_for_rows(folder: RunFolder, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder.path / "rounds.csv").exists() and len(folder.records()) >= 2:
            return
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate())


INTERRUPTIBLE = """
import signal, sys
from simulations.cli.start import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
print("loading", file=sys.stderr, flush=True)
sys.exit(main())
"""
"""The command as it is started in a terminal."""


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("workers", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_ctrl_c_leaves_a_run_that_can_be_resumed(cache: Path, workers: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    endless = ["--preset", "smoke", "--set", "server.rounds=100000", "--workers", workers]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "run", *endless, "--out", "r", "--cache", str(cache)],
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = RunFolder(Path("r"))
    wait_for_rows(folder, process)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - started < 10
    assert out == ""
    assert "interrupted; continue with: fedsi run --resume --out r" in err.splitlines()[-1]
    assert "Traceback" not in err
    records = folder.records()
    assert [record.round for record in records] == list(range(len(records)))
    assert (folder.path / "checkpoint.safetensors").exists()
    assert folder.summary() is None
    assert not (home / ".flwr").exists()  # where Flower keeps its state and an id for telemetry


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("seconds", [0.05, 0.3])
def test_ctrl_c_while_libraries_are_loaded_is_one_sentence(seconds: float) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            INTERRUPTIBLE,
            "run",
            "--preset",
            "smoke",
            "--set",
            "server.rounds=100000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    # A slow processor is still loading then, a fast one is building the commands.
    assert err in {"error: interrupted while libraries were loaded\n", "error: interrupted\n"}


def test_a_full_disk_behind_standard_output_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "presets"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write: No space left on device; free some space\n"


LIMITED = """
import resource, signal, sys
from simulations.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""
"""Makes the next larger file fail, as on a full disk."""


@pytest.mark.parametrize(
    ("size", "file"),
    [
        (300, "experiment.toml"),
        pytest.param(1000, "rounds.csv", marks=pytest.mark.slow),
        (20_000, "model"),
    ],
)
def test_a_disk_that_fills(cache: Path, size: int, file: str) -> None:
    assert run(cache, *TINY, "--out", "before") == 0
    # Without checkpoints on the way the limits meet one file after another.
    arguments = ["--preset", "smoke", "--set", "server.rounds=3", "--set", "server.optimizer=sgd"]
    if file == "rounds.csv":
        arguments += ["--set", "server.evaluate_every=1", "--set", "model.embedding_size=1"]
        arguments += ["--set", "model.hidden_size=1", "--set", "data.vocabulary_size=5"]
        run(cache, *arguments, "--out", "warm")
    command = [sys.executable, "-c", LIMITED, str(size), "run", *arguments]
    done = subprocess.run(
        [*command, "--out", "r", "--cache", str(cache)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("error: cannot write")
    assert "File too large; free some space" in sentence
    assert "Traceback" not in done.stderr
    assert not list(Path("r").glob(".part-*"))
    if Path("r/rounds.csv").exists():
        RunFolder(Path("r")).records()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "fedsi 0.1.0\n"
    for command in (["run"], ["compare"], ["data", "describe"], ["data", "prepare"]):
        assert main([*command, "--help"]) == 0
        assert "--set" in capsys.readouterr().out


@pytest.mark.usefixtures("fresh_processes")
def test_importing_and_running_need_no_network(cache: Path) -> None:
    script = f"""
import socket, sys
def refuse(*_): raise AssertionError("network")
socket.socket.connect = socket.socket.bind = refuse
socket.getaddrinfo = refuse
from simulations.cli.main import main
sys.exit(main({["run", *TINY, "--workers", "2", "--cache", str(cache), "--out", "r"]!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.path.exists("r/summary.json")  # noqa: PTH110
