"""The table of formats, and from a path to a corpus that can be read."""

import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from fedsi.data.content import content_sha256
from fedsi.data.corpus import Corpus, Progress, Row, silent
from fedsi.data.formats import (
    fedjax_sqlite,
    hugging_face,
    leaf,
    tables,
    text,
    tff_hdf5,
    tff_sqlite,
)
from fedsi.data.formats.files import Columns, Part, is_compressed, plain_name, unpack
from fedsi.data.formats.listing import data_files
from fedsi.data.left_out import LeftOut
from fedsi.errors import UserError

AUTO = "auto"


@dataclass(frozen=True)
class Format:
    """One way in which a corpus can lie on disk.

    Args:
        suffixes: Endings of its files, compression left off.
        read: Yields the rows of one file.
        random_access: Whether a compressed file has to be unpacked before it is read.
        table: A table that tells its databases from others.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Part, Columns], Iterator[Row]]
    random_access: bool = False
    table: str | None = None


_DATABASES = (".sqlite", ".sqlite3", ".db")

FORMATS = {
    "jsonl": Format((".jsonl", ".ndjson"), tables.read_jsonl),
    "csv": Format((".csv",), tables.read_csv),
    "parquet": Format((".parquet",), tables.read_parquet, random_access=True),
    "leaf": Format((".json",), leaf.read_leaf),
    "tff_hdf5": Format((".h5", ".hdf5"), tff_hdf5.read_tff_hdf5, random_access=True),
    "tff_sqlite": Format(
        _DATABASES, tff_sqlite.read_tff_sqlite, random_access=True, table=tff_sqlite.EXAMPLES
    ),
    "fedjax_sqlite": Format(
        _DATABASES, fedjax_sqlite.read_fedjax_sqlite, random_access=True, table=fedjax_sqlite.TABLE
    ),
    "text": Format(text.SUFFIXES, text.read_text),
    "hugging_face": Format((), hugging_face.read_hugging_face),
}
"""A new format is a module with a reader, and a line here."""

_SPLIT = re.compile(r"(?<![a-z])(train|test|heldout|validation|valid|dev)(?![a-z])")
"""Words in a file's path that name a split, as in ``train/part-0.json`` or ``x_train.h5``."""

_EXPLANATION = re.compile(r"(readme|licen[cs]e|notice|citation|changelog).*|.*\.md", re.IGNORECASE)


def open_corpus(
    path: Path,
    kind: str = AUTO,
    columns: Columns = Columns(),  # noqa: B008  # immutable
    *,
    skip_bad: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Corpus:
    """Open a file, or a folder of files, in any of the formats.

    Args:
        path: Where it is.
        kind: A key of ``FORMATS``, or ``auto`` to go by the path.
        columns: Which columns to read.
        skip_bad: Whether rows that are not well-formed are left out, not refused.
        cache: Folder for hashes of files seen before, and for what has to be unpacked.
        progress: Told how far the hashing is.

    Raises:
        UserError: The path is missing, unreadable or of no known format. Bad content is reported
            while the rows are read, with its place.
    """
    if not path.exists():
        raise UserError(
            f"there is no corpus {path}; name a file or folder, or one of the corpora that come "
            "with fedsi: pydocs, synthetic"
        )
    if kind != AUTO and kind not in FORMATS:
        raise UserError(f"data.format = {kind!r} is not allowed: expected auto or {_known()}")
    files = data_files(path)
    kind = _recognise(path, files) if kind == AUTO else kind
    files = _files_of(kind, files)
    if not files:
        raise UserError(f"the folder {path} holds no file of the format {kind}")
    left_out = LeftOut(skip_bad)
    parts = list(_parts(path, kind, files, left_out))
    try:
        sha256 = content_sha256(path, files, cache, progress)
    except OSError as error:
        raise UserError(f"cannot read the corpus {path}: {error.strerror}") from None

    def rows() -> Iterator[Row]:
        left_out.counts.clear()
        for part in parts:
            yield from _read(part, FORMATS[kind], columns, cache)

    return Corpus(name=path.name, sha256=sha256, rows=rows, left_out=left_out)


def recognise(path: Path) -> str:
    """Return the format of a file or folder, by its name and by the tables of a database.

    Raises:
        UserError: None, or more than one, is possible.
    """
    return _recognise(path, data_files(path))


def _recognise(path: Path, files: list[Path]) -> str:
    if path.is_dir() and any((path / marker).exists() for marker in hugging_face.MARKERS):
        return "hugging_face"
    kinds = {kind for file in files if (kind := _format_of(file))}
    if len(kinds) == 1:
        return kinds.pop()
    found = f"it could be {' or '.join(sorted(kinds))}" if kinds else "no known ending"
    raise UserError(
        f"cannot tell the format of {path} ({found}); name it with data.format, one of {_known()}"
    )


def _known() -> str:
    return ", ".join(FORMATS)


def _format_of(file: Path) -> str | None:
    name = plain_name(file.name)
    kinds = [kind for kind, form in FORMATS.items() if name.endswith(form.suffixes)]
    if len(kinds) < 2 or is_compressed(file.name):
        return kinds[0] if kinds else None
    present = _tables(file)
    return next((kind for kind in kinds if FORMATS[kind].table in present), kinds[0])


def _tables(file: Path) -> set[str]:
    """Return the tables of a database; none of a file that is damaged, which its reader reports."""
    try:
        with closing(tff_sqlite.open_sqlite(file)) as connection:
            return tff_sqlite.tables_of(connection)
    except (sqlite3.Error, UnicodeDecodeError):
        return set()


def _files_of(kind: str, files: list[Path]) -> list[Path]:
    """Return the files of a format; if no name has its ending, all but what explains the others."""
    suffixes = FORMATS[kind].suffixes
    if not suffixes or len(files) == 1:
        return files
    named = [file for file in files if plain_name(file.name).endswith(suffixes)]
    return named or [file for file in files if not _EXPLANATION.fullmatch(file.name)]


def _parts(path: Path, kind: str, files: list[Path], left_out: LeftOut) -> Iterator[Part]:
    if path.is_file() or kind == "hugging_face":
        yield Part(path, path.name, left_out)
        return
    for file in files:
        yield Part(file, file.relative_to(path).as_posix(), left_out)


def _read(part: Part, form: Format, columns: Columns, cache: Path | None) -> Iterator[Row]:
    """Yield the rows of a file; the split is the row's own or the one that the path names."""
    named = _SPLIT.search(part.name.lower())
    split = named.group(1) if named else ""
    if not (form.random_access and is_compressed(part.path.name)):
        for row in form.read(part, columns):
            yield row if row.split or not split else row._replace(split=split)
        return
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=cache) as folder:
        unpacked = Path(folder) / plain_name(part.path.name)
        unpack(part.path, unpacked)
        yield from _read(replace(part, path=unpacked), form, columns, cache)
