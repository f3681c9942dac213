"""A disk that is full at any write of a run ends it with a sentence, and it goes on afterwards."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from server.runs.folder import RunFolder
from simulations.cli.main import main

BLT = {
    "server.rounds": 3,
    "server.evaluate_every": 2,
    "server.sampling": "shuffled",
    "server.averaging": "uniform",
    "privacy.mechanism": "blt",
    "privacy.clip_norm": 0.5,
    "privacy.noise_multiplier": 1.0,
}
SCAFFOLD = {"server.rounds": 2, "algorithm.name": "scaffold", "server.averaging": "uniform"}


@dataclass
class Disk:
    """The writes so far, and the one from which on the disk is full; 0 for never."""

    full_at: int = 0
    writes: int = 0

    def check(self) -> None:
        self.writes += 1
        if self.full_at and self.writes >= self.full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Writing:
    """A file whose writes may find the disk full; half of the content is there then."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, content: bytes) -> int:
        try:
            self._disk.check()
        except OSError:
            self._file.write(content[: len(content) // 2])
            raise
        return int(self._file.write(content))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "Writing":
        self._file.__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        self._file.__exit__(*what)


@contextmanager
def filling(full_at: int) -> Iterator[Disk]:
    """Count the writes to files of runs; from one on they fail as on a full disk."""
    disk, opened, temporary = Disk(full_at), Path.open, tempfile.NamedTemporaryFile

    def open_path(self: Path, mode: str = "r", *rest: Any, **more: Any) -> IO[Any]:
        file: Any = opened(self, mode, *rest, **more)
        return Writing(file, disk) if mode == "r+b" else file  # type: ignore[return-value]

    def open_temporary(*rest: Any, **more: Any) -> Any:
        return Writing(temporary(*rest, **more), disk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", open_path)
        patch.setattr(tempfile, "NamedTemporaryFile", open_temporary)
        yield disk


def command(changes: dict[str, Any], cache: Path, out: Path) -> list[str]:
    settings = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    return ["run", "--preset", "smoke", *settings, "--cache", str(cache), "--out", str(out)]


@pytest.mark.slow  # two runs for each write of a run
@pytest.mark.parametrize("changes", [BLT, SCAFFOLD], ids=["blt", "scaffold"])
def test_a_full_disk_at_any_write_ends_a_run_that_then_goes_on_with_the_same_bits(
    cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    assert main(command(changes, cache, tmp_path / "warm")) == 0
    with filling(0) as disk:
        assert main(command(changes, cache, tmp_path / "whole")) == 0
    expected = RunFolder(tmp_path / "whole").summary()
    assert expected
    rounds = [record.round for record in RunFolder(tmp_path / "whole").records()]
    assert disk.writes > 15
    for full_at in range(1, disk.writes + 1):
        out = tmp_path / str(full_at)
        capfd.readouterr()
        with filling(full_at):
            code = main(command(changes, cache, out))
        errors = capfd.readouterr().err
        assert code in {1, 2}, (full_at, errors)
        assert "Traceback" not in errors, (full_at, errors)
        sentence = errors.splitlines()[-1]
        assert "No space left on device; free some space" in sentence, (full_at, errors)
        assert not list(out.rglob(".part-*"))
        begun = (out / "experiment.toml").exists()
        again = ["run", "--resume", "--cache", str(cache), "--out", str(out)]
        assert main(again if begun else command(changes, cache, out)) == 0, full_at
        found = RunFolder(out).summary()
        assert found
        assert found.model_sha256 == expected.model_sha256, full_at
        assert [record.round for record in RunFolder(out).records()] == rounds, full_at
