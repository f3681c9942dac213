"""Files of a folder that are read; no other file changes the folder's hash."""

import errno
import gzip
import os
import socket
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fedsi import UserError
from fedsi.data.formats.listing import data_files, is_data
from fedsi.data.formats.opening import open_corpus

LEFT_BY_PROGRAMS = [
    ".notes.txt", "._a.jsonl", ".DS_Store", "__MACOSX/._a.jsonl", "__MACOSX/a.jsonl",
    ".ipynb_checkpoints/a-checkpoint.jsonl", ".git/a.jsonl", "a.jsonl~", "~$a.jsonl", "#a.jsonl#",
    "a.jsonl.swp", "Thumbs.db", "desktop.ini", "a.jsonl.bak", "a.jsonl.crdownload", "_SUCCESS",
    "a.jsonl:Zone.Identifier", "@eaDir/a.jsonl",
    ".part-0.jsonl.crc", "_temporary/0/a.jsonl", "__pycache__/a.jsonl", "lost+found/a.jsonl",
    "c.sqlite-wal", "c.db-journal",
]  # fmt: skip


def line(user: str, text: str = "some words") -> str:
    return f'{{"user": "{user}", "text": "{text}"}}\n'


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def clients(path: Path, kind: str = "auto") -> list[str]:
    return [row.client for row in open_corpus(path, kind).rows()]


@pytest.mark.parametrize("name", LEFT_BY_PROGRAMS)
def test_what_programs_leave_is_neither_read_nor_hashed(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.jsonl", line("ann"))
    before = open_corpus(tmp_path).sha256
    write(tmp_path / name, line("nobody"))
    assert clients(tmp_path) == ["ann"]
    assert open_corpus(tmp_path).sha256 == before


@pytest.mark.parametrize(
    "name", ["a.txt", "user=ann", "_ann.txt", "a.b.txt", "-x", "journal", "a~b"]
)
def test_other_names_are_data(name: str) -> None:
    assert is_data(name)


def test_a_corpus_in_a_hidden_folder_is_one(tmp_path: Path) -> None:
    write(tmp_path / ".cache" / "corpus" / "a.jsonl", line("ann"))
    assert clients(tmp_path / ".cache" / "corpus") == ["ann"]


def test_a_file_that_is_not_read_does_not_change_the_hash(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", line("ann"))
    before = open_corpus(tmp_path).sha256
    write(tmp_path / "README.md", "About a.jsonl")
    assert open_corpus(tmp_path).sha256 == before


@pytest.mark.parametrize("name", ["README.txt", "LICENSE.json", "notice.csv"])
def test_what_explains_the_others_does_not_make_the_format_unclear(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path / "a.jsonl", line("ann"))
    write(tmp_path / name, "About a.jsonl")
    assert clients(tmp_path) == ["ann"]
    # Alone it is a corpus like any other.
    write(tmp_path / "alone" / "readme.jsonl", line("bob"))
    assert clients(tmp_path / "alone") == ["bob"]


@pytest.mark.parametrize("name", ["part-0.json", "part-00000", "part-0.dat.gz"])
def test_a_named_format_overrides_the_endings_of_a_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "README.md", "Made by a program.")
    path = tmp_path / name
    content = line("ann").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    assert clients(tmp_path, "jsonl") == ["ann"]


def test_dots_are_part_of_a_text_file_s_name(tmp_path: Path) -> None:
    for name in ("ann.smith.txt", "ann.jones.txt", "v1.2/bob.TXT", "cid"):
        write(tmp_path / name, "some words")
    assert clients(tmp_path, "text") == ["ann.jones", "ann.smith", "v1.2/bob"]
    for path in sorted(tmp_path.rglob("*.[tT]*")):
        path.rename(path.with_suffix(""))
    assert clients(tmp_path, "text") == ["ann.jones", "ann.smith", "cid", "v1.2/bob"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "b.jsonl", line("bob"))
    write(tmp_path / "corpus" / "a.jsonl", line("ann"))
    for name in ("linked", "again"):
        (tmp_path / "corpus" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "itself").symlink_to(tmp_path / "corpus")
    assert clients(tmp_path / "corpus") == ["ann", "bob"]


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"a.jsonl is a link to nothing"):
        open_corpus(tmp_path)


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "private" / "a.jsonl", line("ann"))
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read .*private: Permission denied"):
        open_corpus(tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(line("ann"))
    opened = Path.open

    def refused(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "b.jsonl":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UserError, match=r"cannot read .*b\.jsonl: Permission denied; .* readable"):
        open_corpus(tmp_path)


def test_pipes_devices_and_the_root_are_refused_as_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in (tmp_path / "pipe", tmp_path / "socket", Path(os.devnull)):
            with pytest.raises(UserError, match=r"is a pipe or a device; .* write it to a file"):
                open_corpus(name, "jsonl")
    with pytest.raises(UserError, match=r"whole file system"):
        data_files(Path("/"))


def test_a_link_that_may_not_be_looked_at_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "ann.txt", "so it begins\n")
    (tmp_path / "cwd").symlink_to(tmp_path / "ann.txt")

    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refused)  # as /proc/1/cwd of another user
    with pytest.raises(
        UserError, match=r"cannot read .*cwd: Permission denied; a corpus is all th"
    ):
        data_files(tmp_path)


def test_a_readme_among_texts_is_no_client(tmp_path: Path) -> None:
    for name in ("ann.txt", "bob.txt", "README.txt", "LICENSE.txt"):
        write(tmp_path / name, "so it begins\n")
    assert set(clients(tmp_path)) == {"ann", "bob"}
    write(tmp_path / "alone" / "README.txt", "so it begins\n")
    assert set(clients(tmp_path / "alone")) == {"README"}


def test_where_there_is_no_file_of_data_that_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    (empty / ".git").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("__MACOSX/._a.csv", "x")
    for path in (empty, tmp_path / "empty.zip"):
        with pytest.raises(UserError, match=r"there is no file of data in .*empty"):
            open_corpus(path)
