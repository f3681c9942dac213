"""Opening of a corpus from a path."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedsi.data.content_hash import content_sha256
from fedsi.data.corpus import Corpus, Progress, Row, silent
from fedsi.data.formats.files import Columns, Part, is_packed, plain_name, unpack
from fedsi.data.formats.listing import parts_of
from fedsi.data.formats.recognition import AUTO, known_formats, parts_of_kind, recognise
from fedsi.data.formats.table import FORMATS, Format
from fedsi.data.formats.tff_sqlite import logs_of
from fedsi.data.left_out_rows import LeftOut
from fedsi.errors import UserError

_SPLIT = re.compile(r"(?<![a-z])(train|test|heldout|validation|valid|dev)(?![a-z])")
"""Words in a file's path that name a split, as in ``train/part-0.json`` or ``x_train.h5``."""

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""Beginning of an address, such as ``https://``; in a path the second slash is lost."""

_FOLDER_COLUMN = re.compile(r"(?<![^/])(?!split=)[^/=]+=[^/]*/")


def open_corpus(
    path: Path,
    kind: str = AUTO,
    columns: Columns = Columns(),  # noqa: B008  # immutable
    *,
    skip_bad: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Corpus:
    """Open a file, or a folder or archive of files, in any of the formats.

    Args:
        path: The file, folder or archive.
        kind: A key of ``FORMATS``, or ``auto`` to recognise the format.
        columns: The columns to read.
        skip_bad: Whether malformed rows are left out instead of refused.
        cache: Folder for hashes of files and for unpacked files.
        progress: Called to report progress of hashing.

    Raises:
        UserError: The path is missing, unreadable or of no known format. Bad content is reported
            while the rows are read, with its place.
    """
    if _ADDRESS.match(str(path)):
        raise UserError(
            f"{path} is an address, and corpora are files; fetch it and name the file or folder"
        )
    if not path.exists():
        raise UserError(
            f"there is no corpus {path}; name a file or folder, or one of the corpora that come "
            "with fedsi: pydocs, synthetic"
        )
    if kind != AUTO and kind not in FORMATS:
        raise UserError(
            f"data.format = {kind!r} is not allowed: expected auto or {known_formats()}"
        )
    left_out = LeftOut(skip_bad)
    parts = parts_of(path, left_out)
    kind, parts = recognise(path, parts) if kind == AUTO else (kind, parts_of_kind(kind, parts))
    if not parts:
        raise UserError(f"the folder {path} holds no file of the format {kind}")
    files = [file for part in parts for file in (part.path, *logs_of(part.path))]
    try:
        sha256 = content_sha256(path, list(dict.fromkeys(files)), cache, progress)
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or path}: {error.strerror}; a corpus is all that lies "
            "below its folder, so make that readable or name another folder"
        ) from None
    if kind == "hugging_face":  # one reader for the folder
        parts = [Part(path, path.name, left_out)]

    def rows() -> Iterator[Row]:
        left_out.counts.clear()
        for part in parts:
            yield from _read(part, FORMATS[kind], columns, cache)

    return Corpus(name=path.name, sha256=sha256, rows=rows, left_out=left_out)


def _read(part: Part, form: Format, columns: Columns, cache: Path | None) -> Iterator[Row]:
    """Yield the rows of a file; the split is the row's own, or the one named by the path."""
    if form.random_access and is_packed(part):
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=cache) as folder:
            unpacked = Path(folder) / Path(plain_name(part.file_name)).name
            unpack(part, unpacked)
            plain = replace(part, path=unpacked, member="", shown=str(part))
            yield from _read(plain, form, columns, cache)
        return
    named = _SPLIT.search(_FOLDER_COLUMN.sub("", part.name.lower()))
    split = named.group(1) if named else ""
    for row in form.read(part, columns):
        yield row if row.split or not split else row._replace(split=split)
