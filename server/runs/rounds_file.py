"""``rounds.csv``: one row per round, written when the round ends, after one of the untrained model.

The untrained model has round 0. Files of earlier versions begin with round 1.
"""

import csv
import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from fedsi.errors import DamagedError, UserError
from fedsi.files import cannot_write, write_atomically
from server.round_record import RoundRecord

ROUNDS = "rounds.csv"
START_AGAIN = "put it back, or start again with --overwrite"

_ROUND_TYPES = {f.name: f.type for f in fields(RoundRecord) if f.name != "heldout"}
LINE_END = b"\r\n"
_NONE = -1


def columns_of(metrics: Sequence[str]) -> list[str]:
    """Return the columns of ``rounds.csv``; the held-out ones are empty without an evaluation."""
    return [*_ROUND_TYPES, *(f"heldout_{name}" for name in metrics)]


@dataclass(frozen=True)
class Seal:
    """A checkpoint's seal of the rows, so that a resumed run has each row once.

    The checkpoint of a round is written before the round's row. A run that is killed in between
    finds the row here, and so neither loses it nor repeats the round.
    """

    row: str
    """The line of the checkpoint's round, without its line end."""
    sha256: str
    """Hash of the whole file up to that line, in hexadecimal."""


@dataclass(frozen=True)
class _Written:
    """The rows written by this process. Replaced whole, so that Ctrl-C leaves it consistent."""

    digest: Any
    """SHA-256 of the file."""
    last: int
    """The last row's round; ``_NONE`` if there is no row."""

    def with_row(self, line: bytes, number: int) -> "_Written":
        digest = self.digest.copy()
        digest.update(line)
        return _Written(digest, number)


class RoundsFile:
    """The rows of a run.

    Args:
        folder: The run's folder.
        metrics: Returns the names of its task's metrics.
    """

    def __init__(self, folder: Path, metrics: Callable[[], Sequence[str]]) -> None:
        self.path = folder / ROUNDS
        self._ask = metrics
        self._written = _Written(hashlib.sha256(), _NONE)

    @cached_property
    def _metrics(self) -> Sequence[str]:
        return self._ask()

    def replace(self, records: Sequence[RoundRecord]) -> None:
        """Rewrite the file with some rows."""
        self.__dict__.pop("_metrics", None)  # the run that is replaced may have had another task
        last = records[-1].round if records else _NONE
        self._write(rows_text(records, self._metrics).encode(), last)

    def append(self, record: RoundRecord) -> None:
        """Add a row.

        Raises:
            UserError: The disk is full; earlier rows are unchanged.
        """
        line = _line(record, self._metrics)
        try:
            with self.path.open("r+b") as file:
                end = file.seek(0, io.SEEK_END)
                try:
                    file.write(line)
                    file.flush()
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._written = self._written.with_row(line, record.round)

    def amend(self, record: RoundRecord) -> None:
        """Replace the last row."""
        lines = self.path.read_bytes().split(LINE_END)[:-2]
        before = b"".join(line + LINE_END for line in lines)
        self._write(before + _line(record, self._metrics), record.round)

    def sync(self) -> None:
        """Flush the rows to disk."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def sha256(self) -> str:
        """Return the hash of the written rows."""
        return str(self._written.digest.hexdigest())

    def seal(self, record: RoundRecord) -> Seal:
        """Return the seal for the last round's checkpoint; its row may not be written yet."""
        line, written = _line(record, self._metrics), self._written
        if record.round > written.last:
            written = written.with_row(line, record.round)
        return Seal(line.removesuffix(LINE_END).decode(), written.digest.hexdigest())

    def cut(self, last: int, seal: Seal) -> None:
        """Keep the rows up to a round; the row of that round comes from the checkpoint.

        Raises:
            DamagedError: They are not the rows that the run wrote.
        """
        try:
            lines = self.path.read_bytes().split(LINE_END)
        except OSError as error:
            raise DamagedError(
                f"cannot read {self.path}: {error.strerror}; {START_AGAIN}"
            ) from None
        first = 0 if last == 0 or (lines[1:2] and lines[1].startswith(b"0,")) else 1
        before = lines[: 1 + last - first]  # with the header
        whole = b"".join(line + LINE_END for line in (*before, seal.row.encode()))
        if hashlib.sha256(whole).hexdigest() != seal.sha256:
            raise DamagedError(
                f"{self.path} does not hold the rows that the run wrote in the {last} rounds "
                f"before its checkpoint; {START_AGAIN}"
            )
        self._write(whole, last)

    def read(self) -> list[RoundRecord]:
        """Read all rows.

        Raises:
            UserError: The file is missing, damaged or of another version.
        """
        try:
            return parse_rows(self.path.read_bytes(), self.path, self._metrics)
        except OSError as error:
            raise UserError(
                f"cannot read {self.path}: {error.strerror}; start again with --overwrite"
            ) from None

    def _write(self, content: bytes, last: int) -> None:
        write_atomically(self.path, content)
        self._written = _Written(hashlib.sha256(content), last)


def parse_rows(content: bytes, path: Path, metrics: Sequence[str]) -> list[RoundRecord]:
    """Return the rounds in the bytes of a file.

    Args:
        content: The bytes of the file.
        path: The file's path, for the error.
        metrics: The names of the task's metrics.

    Raises:
        UserError: They are damaged, or of another version.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        columns = reader.fieldnames
        rows = list(reader)
        if why := _other_columns(columns, metrics):
            raise UserError(
                f"{path} has the columns of another version of fedsi ({why}); start again with "
                "--overwrite, or name another folder with --out"
            )
        return [_record(row, metrics) for row in rows]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}; start again with --overwrite") from None


def other_columns(content: bytes, metrics: Sequence[str]) -> str | None:
    """Return how the columns of a file differ from this version's; None if they do not."""
    header = content.partition(LINE_END)[0].decode(errors="replace")
    return _other_columns(header.split(","), metrics)


def _other_columns(columns: Sequence[str] | None, metrics: Sequence[str]) -> str | None:
    own, found = columns_of(metrics), list(columns or ())
    if found == own:
        return None
    for kind, names in (("no", own), ("a", found)):
        other = found if kind == "no" else own
        missing = next((name for name in names if name not in other), None)
        if missing is not None:
            return f"it has {kind} column {missing[:40]}"
    return "its columns have another order"


def rows_text(records: Sequence[RoundRecord], metrics: Sequence[str]) -> str:
    """Return the content of ``rounds.csv``: the columns' names, and a line for each round."""
    header = ",".join(columns_of(metrics)).encode() + LINE_END
    return (header + b"".join(_line(record, metrics) for record in records)).decode()


def _line(record: RoundRecord, metrics: Sequence[str]) -> bytes:
    text = io.StringIO()
    heldout = [record.heldout[name] if record.heldout else "" for name in metrics]
    values = [getattr(record, name) for name in _ROUND_TYPES]
    csv.writer(text, lineterminator=LINE_END.decode()).writerow([*values, *heldout])
    return text.getvalue().encode()


def _record(row: dict[str, str], metrics: Sequence[str]) -> RoundRecord:
    values = {name: kind(row[name]) for name, kind in _ROUND_TYPES.items()}  # type: ignore
    heldout = {name: row[f"heldout_{name}"] for name in metrics}
    evaluated = heldout["loss"] != ""
    found = {name: float(value) for name, value in heldout.items()} if evaluated else None
    return RoundRecord(**values, heldout=found)
