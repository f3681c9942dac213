"""A flipped bit in a file that fedsi reads back is reported with the file's name, or harmless."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import pool
from server.runs.checkpoint import CHECKPOINT
from server.runs.folder import RunFolder
from simulations.cli.main import main

SMALL = {
    "server.rounds": 2,
    "server.cohort_size": 3,
    "server.evaluate_every": 1,
    "server.evaluation_clients": 3,
    "data.corpus": "corpus.jsonl",
    "data.heldout_by": "clients",
    "data.heldout_fraction": 0.3,
}
GO_ON = ["run", "--resume", "--cache", "cache", "--out", "run", "--set", "server.rounds=3"]
COMMANDS = (
    GO_ON,
    ["evaluate", "run", "--cache", "cache", "--json"],
    ["predict", "run", "one two"],
    ["report", "run"],
)
SHOWN = {".png", ".svg", ".html"}
"""Endings of files that are only written."""


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the copy of a finished run's folder; this folder has it as ``run``, and its cache."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f'{{"user": "u{user}", "text": "one two three four {number} {user}"}}\n'
        for user in range(12)
        for number in range(6)
    ]
    Path("corpus.jsonl").write_text("".join(rows))
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    assert main(["run", "--preset", "smoke", *settings, "--cache", "cache", "--out", "run"]) == 0
    return Path(shutil.copytree("run", "kept"))


def restore(kept: Path) -> None:
    shutil.rmtree("run")
    shutil.copytree(kept, "run")
    pool.population_of.cache_clear()  # files are checked once in a process


def flipped(path: Path, places: int) -> Iterator[int]:
    """Flip a bit at some places of a file, one after the other, and put it right again."""
    content = path.read_bytes()
    for number in range(places):
        place = (len(content) - 1) * number // max(1, places - 1)
        changed = bytearray(content)
        changed[place] ^= 1 << (number % 8)
        path.write_bytes(changed)
        yield place
    path.write_bytes(content)


def test_a_damaged_checkpoint_leaves_a_finished_run_as_it_was(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = RunFolder(finished).summary()
    for _ in flipped(Path("run", CHECKPOINT), 3):
        assert main(GO_ON) == 2
        assert f"the checkpoint run/{CHECKPOINT} is damaged" in capfd.readouterr().err
        assert RunFolder(Path("run")).summary() == before


def outcome(command: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return a command's exit status, its result and its errors."""
    code = main(command)
    out, errors = capfd.readouterr()
    if command is GO_ON and not code:
        summary = RunFolder(Path("run")).summary()
        assert summary
        out = summary.model_sha256
    if command[0] == "report" and not code:
        out = Path("run", "report.html").read_text()
    return code, out, errors


@pytest.mark.slow  # a few hundred commands
def test_every_flipped_bit_is_reported_or_harmless(
    finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    expected = []
    for command in COMMANDS:
        restore(finished)
        expected.append(outcome(command, capfd)[:2])
    restore(finished)
    read_back = [p for p in sorted(Path("run").iterdir()) if p.suffix not in SHOWN]
    cached = [path for path in Path("cache").rglob("*") if path.is_file() and path.stat().st_size]
    found = {}
    for path in [*read_back, *cached]:
        if path.name == ".lock":
            continue
        for place in flipped(path, 5):
            damaged = path.read_bytes()
            for command, (code, result) in zip(COMMANDS, expected, strict=True):
                restore(finished)
                path.write_bytes(damaged)
                got, out, errors = outcome(command, capfd)
                where = f"{path} at {place}, {command[0]}: {got} {errors[-300:]}"
                assert "Traceback" not in errors, where
                named = str(path) in errors or str(path.parent) in errors
                found[where] = (got, out) == (code, result) or (got == 2 and named)
    assert not [where for where, fine in found.items() if not fine]
    assert len(found) > 150
