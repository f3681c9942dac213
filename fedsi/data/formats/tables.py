"""Tables with a user and a text column: JSON lines, CSV and Parquet.

Three more columns mean something where they are there: rows that share ``group`` can be held out
together, ``split`` is the corpus's own split, and the label column can be re-partitioned over.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults, open_text, optional
from fedsi.errors import UserError

GROUP_COLUMN, SPLIT_COLUMN = "group", "split"
USER_COLUMNS = ("user", "user_id", "client_id", "client")
TEXT_COLUMNS = ("text", "tokens", "snippets")
"""Tried in this order where the experiment names no column."""

_LONGEST_FIELD = 2**31 - 1
_BATCH = 4096

_Record = Mapping[str, object]


def read_jsonl(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a file with one JSON object a line."""
    place = Place()
    with faults(part.path, place), open_text(part.path) as file:
        rows = RowMaker(part, columns)
        for number, line in enumerate(file, start=1):
            place.text = f"line {number}"
            if line.strip():
                yield from rows.row(_object(line, part, place), place)


def _object(line: str, part: Part, place: Place) -> dict[str, object]:
    try:
        values = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{part.path}, {place.text}: not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{part.path}, {place.text}: expected a JSON object with named columns")
    return values


def read_csv(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a CSV file whose first line names the columns."""
    csv.field_size_limit(_LONGEST_FIELD)
    place = Place()
    with faults(part.path, place), open_text(part.path) as file:
        rows = RowMaker(part, columns)
        reader = csv.DictReader(file, strict=True)
        for values in reader:
            place.text = f"line {reader.line_num}"
            if None in values:
                raise UserError(
                    f"{part.path}, {place.text}: more fields than the header has columns"
                )
            yield from rows.row(values, place)


def read_parquet(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a Parquet file, a batch of rows at a time."""
    parquet = optional("pyarrow.parquet", "parquet")
    place = Place()
    with faults(part.path, place):
        file = parquet.ParquetFile(part.path, memory_map=True)
        rows = RowMaker(part, columns)
        needed = rows.present(file.schema_arrow.names, place)
        done = 0
        for batch in file.iter_batches(_BATCH, columns=needed):
            for values in batch.to_pylist():
                done += 1
                place.text = f"row {done}"
                yield from rows.row(values, place)


class RowMaker:
    """Makes rows of the records of one table.

    Args:
        part: The table, for error messages.
        columns: Which columns to read.
    """

    def __init__(self, part: Part, columns: Columns) -> None:
        self._part = part
        self._columns = columns
        self._user = self._text = ""

    def present(self, names: list[str], place: Place) -> list[str]:
        """Return which of a table's columns are needed.

        Raises:
            UserError: There is no user or no text column.
        """
        self._choose(dict.fromkeys(names), place)
        wanted = (self._user, self._text, GROUP_COLUMN, SPLIT_COLUMN, self._columns.label)
        return [name for name in names if name in wanted]

    def row(self, values: _Record, place: Place) -> Iterator[Row]:
        """Yield the record's row; none if it names no client.

        Raises:
            UserError: A column is missing, or holds something that is not text.
        """
        if self._user not in values or self._text not in values:
            self._choose(values, place)
        user = self._cell(values, self._user, place)
        if not user:
            return
        group, split = values.get(GROUP_COLUMN), values.get(SPLIT_COLUMN)
        label = values.get(self._columns.label) if self._columns.label else None
        yield Row(
            client=user,
            group=str(group) if group else user,
            text=self._cell(values, self._text, place),
            split=str(split) if split else "",
            label="" if label is None else str(label),
        )

    def _choose(self, values: _Record, place: Place) -> None:
        self._user = self._column(values, self._columns.user, USER_COLUMNS, "user", place)
        self._text = self._column(values, self._columns.text, TEXT_COLUMNS, "text", place)

    def _column(
        self, values: _Record, named: str | None, usual: tuple[str, ...], what: str, place: Place
    ) -> str:
        candidates = (named,) if named else usual
        found = next((name for name in candidates if name in values), None)
        if found is None:
            there = ", ".join(sorted(map(str, values))) or "none"
            expected = " or ".join(repr(name) for name in candidates)
            raise UserError(
                f"{self._part.path}, {place.text}: no column {expected}; columns there: {there}; "
                f"name yours with data.{what}_column"
            )
        return found

    def _cell(self, values: _Record, column: str, place: Place) -> str:
        value: Any = values[column]
        if value is None:
            return ""
        if isinstance(value, bytes):
            return value.decode()
        if not isinstance(value, str | int):
            raise UserError(
                f"{self._part.path}, {place.text}: column {column!r} holds a "
                f"{type(value).__name__}, expected text"
            )
        return str(value)


def no_feature(part: Part, features: Iterable[str], candidates: Iterable[str]) -> UserError:
    """Return the error of a client without any of the features that may hold the text."""
    there = ", ".join(sorted(map(str, features))) or "none"
    return UserError(
        f"{part.path}: no feature {' or '.join(map(repr, candidates))}; features there: "
        f"{there}; name yours with data.text_column"
    )
