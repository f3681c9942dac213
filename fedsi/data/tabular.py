"""JSONL and CSV files with a user and a text column, plain or gzipped."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fedsi.data.corpus import Corpus, Row
from fedsi.errors import UserError
from fedsi.files import sha256_of_file

GROUP_COLUMN = "group"
"""Optional: rows that share it are held out together."""

_LONGEST_FIELD = 2**31 - 1


def tabular_corpus(path: Path, user_column: str, text_column: str) -> Corpus:
    """Open a table.

    Args:
        path: A .jsonl or .csv file, or one of them with .gz behind.
        user_column: Column with the client's id.
        text_column: Column with the text.

    Raises:
        UserError: The file is missing, unreadable, or of another kind. Bad content is reported
            while the rows are read, with the line.
    """
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if kind not in _READERS:
        raise UserError(
            f"cannot tell the format of {path}: expected a name that ends in .jsonl, .csv, "
            ".jsonl.gz or .csv.gz"
        )
    try:
        digest = sha256_of_file(path)
    except OSError as error:
        raise UserError(f"cannot read the corpus {path}: {error.strerror}") from None

    def rows() -> Iterator[Row]:
        for line, values in _records(path, kind):
            client = _cell(values, user_column, path, line)
            text = _cell(values, text_column, path, line)
            if client:
                yield Row(client, str(values.get(GROUP_COLUMN) or client), text)

    return Corpus(name=path.name, sha256=digest, rows=rows)


def _records(path: Path, kind: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield (line number, columns), turning every fault of the file into one sentence."""
    line = 0
    try:
        with _open(path) as file:
            for line, values in _READERS[kind](file, path):
                yield line, values
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not valid UTF-8 (after line {line}: byte {error.object[error.start]:#04x})"
            "; convert the file to UTF-8"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged after line {line}: {error}") from None
    except csv.Error as error:
        raise UserError(f"{path}, after line {line}: not valid CSV: {error}") from None
    except OSError as error:
        raise UserError(f"cannot read the corpus {path}: {error.strerror or error}") from None


def _open(path: Path) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_jsonl(file: IO[str], path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object with named columns")
        yield number, values


def _read_csv(file: IO[str], path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.DictReader(file, strict=True)
    for values in reader:
        if None in values:
            raise UserError(
                f"{path}, line {reader.line_num}: more fields than the header has columns"
            )
        yield reader.line_num, dict(values)


_READERS = {"jsonl": _read_jsonl, "csv": _read_csv}


def _cell(values: dict[str, object], column: str, path: Path, line: int) -> str:
    if column not in values:
        found = ", ".join(sorted(map(str, values))) or "none"
        raise UserError(
            f"{path}, line {line}: no column {column!r}; columns there: {found}; "
            "name yours with data.user_column and data.text_column"
        )
    value = values[column]
    if value is None:
        return ""
    if not isinstance(value, str | int):
        raise UserError(
            f"{path}, line {line}: column {column!r} holds a {type(value).__name__}, expected text"
        )
    return str(value)
