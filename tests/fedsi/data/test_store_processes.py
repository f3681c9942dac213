"""Stores under real processes: killed, at the same time, on a full disk."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from fedsi import UserError
from fedsi.checksums import CHECKSUMS, Checksums, checksums_of
from fedsi.data import token_store
from fedsi.data.token_store import write_folder
from tests.fedsi.data.corpora import built, files_of, own_words, rows_of

ROOT = Path(__file__).parents[3]

BUILDER = """
import sys
from pathlib import Path
from tests.fedsi.data.corpora import built, own_words, rows_of

def rows():
    yield from rows_of(own_words(40))
    print("half", flush=True)
    sys.stdin.read({wait})

import tests.fedsi.data.corpora as corpora
from fedsi.data.corpus import Corpus
corpora.corpus = lambda rows: Corpus("test", "0" * 64, rows)
built(Path(sys.argv[1]), rows)
"""
"""Builds a store, and waits in the middle until its standard input is closed."""


@contextmanager
def started(program: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_half(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "half\n", process.communicate()[1]


def finish(process: "subprocess.Popen[str]") -> str:
    """Let a process end, and return what it wrote to standard error."""
    _, errors = process.communicate(timeout=60)
    return errors


BUILT = BUILDER.format(wait="")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder after verifying its checksums."""
    files = files_of(folder)
    checksums = Checksums.read(folder, "")
    del files[CHECKSUMS]
    assert checksums == checksums_of(folder, files)
    return files


def test_a_killed_build_is_swept_away_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    with started(BUILT, folder) as process:
        wait_for_half(process)
        (part,) = tmp_path.iterdir()
        assert part.name.startswith(".part-")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [path.name for path in tmp_path.iterdir()] == [part.name]
    built(folder, rows_of(own_words(40)))
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert token_store.StoredPopulation(folder).description.training_clients == 28


def test_the_folder_of_a_living_writer_is_left_to_it(tmp_path: Path) -> None:
    with started(BUILT, tmp_path / "slow") as process:
        wait_for_half(process)
        (part,) = tmp_path.iterdir()
        built(tmp_path / "quick", rows_of(own_words(40)))
        assert {path.name for path in tmp_path.iterdir()} == {part.name, "quick"}
        assert finish(process) == ""
        assert process.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"slow", "quick"}
    assert files_of(tmp_path / "slow") == files_of(tmp_path / "quick")


def test_two_processes_may_build_the_same_store(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    with started(BUILT, folder) as one, started(BUILT, folder) as other:
        wait_for_half(one)
        wait_for_half(other)
        assert len(list(tmp_path.iterdir())) == 2
        errors = [finish(one), finish(other)]
    assert (one.returncode, other.returncode, errors) == (0, 0, ["", ""])
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    built(tmp_path / "q", rows_of(own_words(40)))
    assert files_of(folder) == files_of(tmp_path / "q")


RACER = """
import sys
from pathlib import Path
from fedsi.data.token_store import write_folder

def write(into):
    (into / "content").write_text("whole")

for number in range(150):
    write_folder(Path(sys.argv[1]) / str(number), write)
    write_folder(Path(sys.argv[1]) / f"{sys.argv[2]} {number}", write)
"""


def test_writers_that_race_do_not_sweep_one_another_away(tmp_path: Path) -> None:
    with started(RACER, tmp_path, "a") as one, started(RACER, tmp_path, "b") as other:
        errors = [finish(one), finish(other)]
    assert (one.returncode, other.returncode, errors) == (0, 0, ["", ""])
    assert len(list(tmp_path.iterdir())) == 450
    assert all(contents(folder) == {"content": b"whole"} for folder in tmp_path.iterdir())


def test_a_folder_that_was_swept_away_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    swept: list[Path] = []

    def late(file: IO[str], operation: int) -> None:
        if not swept:
            swept.extend(tmp_path.iterdir())
            shutil.rmtree(swept[0])
        lock(file, operation)

    monkeypatch.setattr("fcntl.flock", late)
    write_folder(tmp_path / "p", lambda into: (into / "x").touch())
    assert swept[0].name.startswith(".part-")
    assert contents(tmp_path / "p") == {"x": b""}
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


FULL_DISK = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (int({size}), int({size})))"
    + BUILDER.replace("sys.stdin.read({wait})", "pass")
)


@pytest.mark.parametrize("size", [0, 100, 400, 600, 700])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    with started(FULL_DISK.format(size=size), tmp_path / "p") as process:
        errors = finish(process)
    assert process.returncode == 1
    assert "fedsi.errors.UserError: cannot write" in errors.splitlines()[-1], errors
    assert "free some space or name another folder" in errors
    assert "Exception ignored" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_room_enough_is_not_full(tmp_path: Path) -> None:
    with started(FULL_DISK.format(size=100_000), tmp_path / "p") as process:
        assert finish(process) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write .*file/p: "):
        built(tmp_path / "file" / "p", rows_of(own_words(4)))


def test_abandoned_folders_are_removed_and_locked_ones_kept(tmp_path: Path) -> None:
    for name in ("abandoned", "locked"):
        part = tmp_path / f".part-{name}"
        part.mkdir()
        (part / "lock").touch()
        (part / "tokens.npy").touch()
    (tmp_path / ".part-file").touch()
    (tmp_path / "other").mkdir()
    with (tmp_path / ".part-locked" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_folder(tmp_path / "new", lambda into: (into / "x").touch())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".part-locked", ".part-file", "new", "other"}


def test_a_writer_killed_when_all_is_written_is_swept_away(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from fedsi.data.token_store import "
        "write_folder; Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "write_folder(Path(sys.argv[1]), lambda into: (into / 'x').touch())"
    )
    with started(program, tmp_path / "p") as process:
        finish(process)
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    write_folder(tmp_path / "p", lambda into: (into / "x").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert contents(tmp_path / "p") == {"x": b""}
