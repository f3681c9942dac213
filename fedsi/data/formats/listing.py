"""Listing of the data files of a folder or archive, without files left there by programs."""

import os
import re
import zipfile
from pathlib import Path

from fedsi.data.formats.files import Part, Place, faults
from fedsi.data.left_out_rows import LeftOut
from fedsi.errors import UserError

_LEFT_BY_PROGRAMS = re.compile(
    r"""
      \..*                                # hidden: ._x of macOS, .DS_Store, .x.crc, .git
    | __MACOSX | __pycache__              # archives made by macOS, Python
    | lost\+found | \$RECYCLE\.BIN        # file systems
    | Thumbs\.db | desktop\.ini | Icon\r  # Explorer, Finder
    | .*:Zone\.Identifier | @eaDir         # downloads of Windows, Synology's thumbnails
    | .*~ | ~\$.* | \#.*\# | .*\.sw[a-p]  # editors, office programs
    | .*\.(bak|orig|tmp|part|crdownload)  # copies, and what is not whole yet
    | .*\.(sqlite3?|db)-(wal|shm|journal) # SQLite, beside its databases
    | _(SUCCESS|started_.*|committed_.*|metadata|common_metadata|temporary|delta_log)  # Spark
    """,
    re.VERBOSE | re.IGNORECASE,
)


_ZIP = ".zip"
_ENCRYPTED = 1
_ARCHIVE = re.compile(r"\.(tar(\.\w+)?|tgz|tbz2?|txz|7z|rar)$", re.IGNORECASE)


def is_data(name: str) -> bool:
    """Whether a file or folder with this name may hold data."""
    return not _LEFT_BY_PROGRAMS.fullmatch(name)


def data_files(path: Path) -> list[Path]:
    """List a corpus's files: the file itself, or all files below a folder, sorted by path.

    Only names below ``path`` are checked, so a corpus may be in a hidden folder. Links to folders
    are followed, each folder once.

    Raises:
        UserError: It is neither a file nor a folder, or a part of it cannot be read.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(
            f"{path} is a pipe or a device; a corpus is read more than once, so write it to a "
            "file and name that"
        )
    if path.resolve() == Path(path.resolve().anchor):
        raise UserError(f"{path} holds the whole file system; name the folder of the corpus")
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    _is_new(path, seen)
    for folder, folders, files in os.walk(path, onerror=_refuse, followlinks=True):
        here = Path(folder)
        folders[:] = [f for f in sorted(folders) if is_data(f) and _is_new(here / f, seen)]
        found += [file for name in files if is_data(name) and _is_file(file := here / name)]
    return sorted(found)


def parts_of(path: Path, left_out: LeftOut) -> list[Part]:
    """List a corpus's files, including the members of archives.

    Args:
        path: A file, a folder or an archive.
        left_out: Counter of rows that are left out.

    Raises:
        UserError: Same as ``data_files``; or an archive is damaged, or of an unsupported kind.
    """
    parts: list[Part] = []
    for file in data_files(path):
        name = path.name if file == path else file.relative_to(path).as_posix()
        if not name.lower().endswith(_ZIP):
            parts.append(Part(file, name, left_out))
            continue
        place = "" if file == path else name[: -len(_ZIP)] + "/"
        parts += [Part(file, place + m, left_out, member=m) for m in _members(file)]
    if path.is_file() and _ARCHIVE.search(path.name):
        raise UserError(
            f"{path} is an archive of a kind that is not read; unpack it, or make a .zip"
        )
    return parts


def _members(archive: Path) -> list[str]:
    part = Part(archive, archive.name)
    with faults(part, Place("its list of files")), zipfile.ZipFile(archive) as opened:
        files = [info for info in opened.infolist() if not info.is_dir()]
    if any(info.flag_bits & _ENCRYPTED for info in files):
        raise UserError(f"{archive} needs a password; unpack it and name the folder")
    return sorted(i.filename for i in files if all(map(is_data, i.filename.split("/"))))


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        facts = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from None
    identity = facts.st_dev, facts.st_ino
    new = identity not in seen
    seen.add(identity)
    return new


def _is_file(path: Path) -> bool:
    try:
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path} is a link to nothing; remove it, or restore its target")
        return path.is_file()
    except OSError as error:  # it, or a folder on the way to what it names, may not be looked at
        raise _unreadable(path, error) from None


def _refuse(error: OSError) -> None:
    raise _unreadable(Path(error.filename), error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot read {path}: {error.strerror}; a corpus is all that lies below its folder, so "
        "make that readable or name another folder"
    )
