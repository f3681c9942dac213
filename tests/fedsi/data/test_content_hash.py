"""A corpus's hash changes with its content, and large files are hashed once."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from fedsi.data import content_hash as content
from fedsi.data.content_hash import content_sha256
from fedsi.data.corpus import silent
from fedsi.data.formats.listing import data_files

LONG_AGO = 1_000_000_000


def sha256(path: Path, cache: Path | None = None) -> str:
    return content_sha256(path, data_files(path), cache, silent)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cache hashes of files of any size, and return the names of files whose bytes were read."""
    names: list[str] = []
    hash_bytes = content._hash

    def noted(path: Path, *rest: object) -> str:
        names.append(path.name)
        return hash_bytes(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(content, "_REMEMBERED", 1)
    monkeypatch.setattr(content, "_hash", noted)
    return names


def written(path: Path, text: str, changed: float = LONG_AGO) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (changed, changed))
    return path


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2500])
def test_the_hash_of_a_file_is_that_of_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(content, "_CHUNK", 1000)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 10)
    os.truncate(path, size)
    assert sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_grows_while_it_is_read_is_hashed_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_CHUNK", 1)
    path = written(tmp_path / "file", "long")
    assert content._hash(path, 2, silent) == hashlib.sha256(b"long").hexdigest()


def test_the_hash_of_a_folder_changes_with_every_name_and_content(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    written(folder / "a.txt", "one")
    written(folder / "sub" / "b.txt", "two")
    seen = [sha256(folder)]

    def changed() -> bool:
        seen.append(sha256(folder))
        return seen[-1] not in seen[:-1]

    written(folder / "sub" / "b.txt", "twO")
    assert changed()
    (folder / "a.txt").rename(folder / "c.txt")
    assert changed()
    (folder / "c.txt").rename(folder / "sub" / "c.txt")
    assert changed()
    written(folder / "empty", "")
    assert changed()
    # Two files that swap their content.
    written(folder / "sub" / "b.txt", "one")
    written(folder / "sub" / "c.txt", "twO")
    assert changed()
    (folder / "empty").unlink()
    assert changed()


def test_the_hash_of_a_folder_does_not_hang_on_its_place_or_its_times(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        written(tmp_path / "one" / name, name)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    written(tmp_path / "other" / "a.txt", "a.txt", LONG_AGO + 5)
    (tmp_path / "other" / "nobody").mkdir()
    assert sha256(tmp_path / "one") == sha256(tmp_path / "other")


def test_a_large_file_is_read_once(tmp_path: Path, hashed: list[str]) -> None:
    path, cache = written(tmp_path / "file", "text"), tmp_path / "cache"
    first = sha256(path, cache)
    assert first == sha256(path, cache) == hashlib.sha256(b"text").hexdigest()
    assert hashed == ["file"]
    assert sha256(path) == first, "without a cache it is read again"
    assert hashed == ["file", "file"]


def test_only_changed_files_of_a_folder_are_read_again(tmp_path: Path, hashed: list[str]) -> None:
    folder, cache = tmp_path / "corpus", tmp_path / "cache"
    for name in ("a", "b", "c"):
        written(folder / name, name)
    before = sha256(folder, cache)
    written(folder / "b", "B", LONG_AGO + 1)
    after = sha256(folder, cache)
    assert hashed == ["a", "b", "c", "b"]
    assert before != after


def test_small_files_are_always_read(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "_REMEMBERED", 5)
    path, cache = written(tmp_path / "file", "1234"), tmp_path / "cache"
    first = sha256(path, cache)
    written(path, "5678")
    assert sha256(path, cache) != first
    assert hashed == ["file", "file"]
    assert not cache.exists()


@pytest.mark.parametrize("change", ["size", "time", "file"])
def test_a_remembered_hash_is_that_of_one_file_at_one_time(
    tmp_path: Path, hashed: list[str], change: str
) -> None:
    path, cache = written(tmp_path / "file", "text"), tmp_path / "cache"
    first = sha256(path, cache)
    if change == "size":
        written(path, "texts")
    elif change == "time":
        written(path, "TEXT", LONG_AGO + 1e-6)
    else:
        written(tmp_path / "other", "TEXT").rename(path)
    assert sha256(path, cache) == hashlib.sha256(path.read_bytes()).hexdigest() != first


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("age", [-5.0, 0.0, 1.9])
def test_a_file_that_changed_just_now_is_not_remembered(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    clock = Clock(LONG_AGO + age)
    monkeypatch.setattr(content, "time", clock)
    path, cache = written(tmp_path / "file", "text"), tmp_path / "cache"
    first = sha256(path, cache)
    written(path, "TEXT")  # within the resolution of its time stamp
    assert sha256(path, cache) != first
    clock.now = LONG_AGO + 3
    assert sha256(path, cache) == sha256(path, cache)
    assert len(hashed) == 3


def test_a_file_that_had_just_changed_is_not_remembered_if_reading_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(LONG_AGO + 0.5)

    def slow(path: Path, *_rest: object) -> str:
        text = path.read_text()
        clock.now += 60
        return text

    monkeypatch.setattr(content, "_REMEMBERED", 1)
    monkeypatch.setattr(content, "_hash", slow)
    monkeypatch.setattr(content, "time", clock)
    path, cache = written(tmp_path / "file", "text"), tmp_path / "cache"
    assert sha256(path, cache) == "text"
    written(path, "TEXT")
    assert sha256(path, cache) == "TEXT"


def test_a_damaged_memory_is_not_used(tmp_path: Path, hashed: list[str]) -> None:
    path, cache = written(tmp_path / "file", "text"), tmp_path / "cache"
    first = sha256(path, cache)
    (memory,) = (cache / "hashes").iterdir()
    memory.write_bytes(b"\xff\xfe")
    assert sha256(path, cache) == first
    assert sha256(path, cache) == first
    assert hashed == ["file", "file"]


def test_progress_is_told_of_large_files(tmp_path: Path, hashed: list[str]) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = written(tmp_path / "file", "x" * 100)
    content_sha256(path, [path], None, lambda *step: told.append(step))
    assert told[0][0] == "checking file (MB)"
    assert hashed == ["file"]
