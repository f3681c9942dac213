"""Sizes, files and streams that must not exhaust memory, hang, or cause a traceback."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment, UserError, host_memory
from fedsi.data.synthetic import LONGEST_SENTENCE
from fedsi.host_memory import GIB, check_memory, is_out_of_memory, machine_memory
from simulations import simulate, simulation
from simulations.cli.main import main
from simulations.footprint import check_footprint

REPOSITORY = Path(__file__).parents[2]
LONG = "n" * 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.layers", 2**63),
        ("server.rounds", 2**63),
        ("data.vocabulary_size", 2**31),
        ("data.sequence_length", 2**63 - 1),
        ("data.population", 10**12),
        ("data.examples_sigma", 2.0**53),
        ("data.partition_clients", 2**62),
        ("devices.speed_sigma", 1e6),
        ("devices.over_selection", 1e9),
        ("client.batch_size", 2**40),
        ("client.epochs", 2**40),
        ("server.cohort_size", 2**40),
        ("privacy.canaries", 2**40),
    ],
)
def test_absurd_sizes_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^{key} = .* is not allowed: input should be less"):
        Experiment().updated({key: value})


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a\0b", r"no name has the character \\0"), ("\udcff.jsonl", "unable to parse")],
)
def test_names_that_no_file_can_have(name: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Experiment().updated({"data.corpus": name})


def test_long_values_are_shortened() -> None:
    with pytest.raises(
        UserError, match=r"^data.corpus = 'y{59}\.\.\.y{29}' is not allowed"
    ) as caught:
        Experiment().updated({"data.corpus": "y" * 100_000})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfseed = 7\n", None),
        ("seed = 7\n".encode("utf-16"), None),
        (b"a = " + b"[" * 100_000, "nests brackets too deeply"),
        (b"seed = " + b"9" * 5000, "is not valid TOML"),
        (b"seed = 0x" + b"f" * 50_000, "has an integer of 200000 bits"),
        (b".".join([b"a"] * 100_000) + b" = 1", "has a key of 64 parts or more"),
        (b"#" * (1 << 21), "it has more than 1,048,576 bytes"),
    ],
)
def test_files_of_an_experiment(content: bytes, expected: str | None, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_bytes(content)
    if expected is None:
        assert Experiment.from_file(file).seed == 7
        return
    with pytest.raises(UserError, match=expected):
        Experiment.from_file(file)


@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
@pytest.mark.parametrize(
    "command",
    [
        ["{}"],
        ["--preset", "smoke", "--set", "data.corpus=words.jsonl", "--set", "data.vocabulary={}"],
        ["--preset", "smoke", "--set", "devices.availability=trace", "--set", "devices.trace={}"],
    ],
)
def test_devices_and_pipes_are_not_read(
    device: str,
    command: list[str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    rows = [f'{{"user": "user {user}", "text": "some words"}}\n' for user in range(9)]
    Path("words.jsonl").write_text("".join(rows))
    words = [word.format(device) for word in command]
    assert main(["run", *words, "--cache", str(cache)]) == 2
    assert "it is a device or a pipe, not a file" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--preset", "smoke", "--out", LONG],
        ["run", LONG],
        ["run", "--preset", "smoke", "--set", f"data.corpus={LONG}"],
        ["predict", LONG, "word"],
    ],
)
def test_names_that_are_too_long(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert "is too long for a file name; give a shorter one" in capsys.readouterr().err


def test_more_workers_than_anything_to_do(smoke: Experiment, cache: Path) -> None:
    with pytest.raises(UserError, match="more than the 20 clients of a cohort or an evaluation"):
        simulate(smoke, workers=21, cache=cache)


def test_sequences_that_no_synthetic_sentence_needs(smoke: Experiment, cache: Path) -> None:
    with pytest.raises(UserError, match="whose sentences have 12"):
        simulate(smoke.updated({"data.sequence_length": LONGEST_SENTENCE + 1}), cache=cache)


def test_a_run_that_cannot_fit_says_both_numbers(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # (28 + 4 * 2) bytes on the server and 28 on each of two nodes, and three processes.
    needed = (28 + 8 + 2 * 28) * 10**8 + 3 * (200 << 20)
    monkeypatch.setattr(host_memory, "machine_memory", lambda: needed)
    check_footprint(smoke, 10**8, 2)
    monkeypatch.setattr(host_memory, "machine_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"at least 9\.2 GiB of memory and this machine has 9\.2;"):
        check_footprint(smoke, 10**8, 2)
    # A vector is sent, one returned and one kept: 28 more on the server and 36 on each node.
    scaffold = smoke.updated({"algorithm.name": "scaffold", "server.averaging": "uniform"})
    needed += (28 + 2 * 36) * 10**8
    monkeypatch.setattr(host_memory, "machine_memory", lambda: needed)
    check_footprint(scaffold, 10**8, 2)
    monkeypatch.setattr(host_memory, "machine_memory", lambda: needed - 1)
    with pytest.raises(UserError, match="of memory and this machine has"):
        check_footprint(scaffold, 10**8, 2)
    monkeypatch.setattr(host_memory, "machine_memory", lambda: 100 << 20)
    with pytest.raises(UserError, match=r"parameters on 1 worker\(s\) needs at least 0\.2 GiB"):
        simulate(smoke, cache=cache)


def test_the_machine_has_memory() -> None:
    assert GIB / 4 < machine_memory() < 2**50
    check_memory(1.0, "this test", "")


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (MemoryError(), "out of memory (MemoryError); use fewer workers", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "out of", 1),
        (RuntimeError("std::bad_alloc"), "out of memory (std::bad_alloc)", 1),
        (OSError(errno.EMFILE, "Too many open files"), "use fewer workers or jobs", 1),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: Exception,
    expected: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(simulation, "simulate", fail)
    assert main(["run", "--preset", "smoke", "--out", str(tmp_path / "r")]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert expected in line


def limited(kibibytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a limit of its address space."""
    return subprocess.run(
        ["sh", "-c", f'ulimit -v {kibibytes}; exec "$@"', "sh",
         sys.executable, "-m", "simulations.cli.main", *arguments],
        capture_output=True, text=True, cwd=REPOSITORY, check=False, timeout=600,
    )  # fmt: skip


def least_address_space() -> int:
    """Return the KiB that a refusal asks for."""
    refused = limited(1_000_000, "keys")
    assert refused.returncode == 2
    found = re.fullmatch(
        r"error: this process may use 0\.95 GiB of address space, and fedsi needs at least .* GiB "
        r"on \d+ cores before it trains anything; raise the limit: ulimit -v (\d+), or .*\n",
        refused.stderr,
    )
    assert found
    return int(found[1])


def test_an_address_space_in_which_openblas_would_wait_forever_is_refused() -> None:
    least = least_address_space()
    assert limited(least - 1, "keys").returncode == 2
    assert limited(least, "--version").returncode == 0


@pytest.mark.slow  # three processes that train
def test_a_run_fits_into_the_address_space_that_a_refusal_asks_for(
    cache: Path, tmp_path: Path
) -> None:
    place = ["--cache", str(cache), "--out", str(tmp_path / "run")]
    run = limited(least_address_space(), "run", "--preset", "smoke", "--workers", "2", *place)
    assert run.returncode == 0, run.stderr


def test_an_array_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(2**56)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [(["--version"], ">&-", 0), (["run", "none.toml"], "<&- >&- 2>&-", 2)],
)
def test_closed_streams(arguments: list[str], closed: str, code: int, tmp_path: Path) -> None:
    start = f"from simulations.cli.main import main; raise SystemExit(main({arguments!r}))"
    command = f'"$0" -P -c "$1" {closed}'
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, start],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert not done.stderr
