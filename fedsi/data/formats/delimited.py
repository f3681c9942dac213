"""CSV and its dialects: commas, semicolons, tabs or bars, with or without spaces after them."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults, lines_of
from fedsi.data.formats.rows import RowMaker
from fedsi.data.left_out_rows import BAD_CSV, TOO_FEW, TOO_MANY
from fedsi.errors import UserError

TAB = "tab"
DELIMITERS = ",;\t|"
_LONGEST_FIELD = 2**31 - 1
_LOOKED_AT = 20
"""Number of lines examined."""

_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""The line that Excel writes before the header."""


@dataclass(frozen=True)
class Dialect:
    """The field separator of a file."""

    delimiter: str
    blank_after: bool = False
    """Whether a space follows each delimiter."""

    def reader(self, lines: Any) -> Any:
        """Return a reader that refuses invalid CSV."""
        return csv.reader(
            lines, delimiter=self.delimiter, skipinitialspace=self.blank_after, strict=True
        )


def read_csv(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a CSV file whose first line names the columns."""
    csv.field_size_limit(_LONGEST_FIELD)
    place = Place()
    with faults(part, place), closing(lines_of(part, place)) as lines:
        first = list(islice(lines, _LOOKED_AT))
        if first and (named := _SEPARATOR_LINE.fullmatch(first[0])):
            first, columns = first[1:], _with_delimiter(columns, named[1])
        rows = RowMaker(part, columns)
        dialect = inspected(first, columns, rows)
        records = _records(part, dialect.reader(chain(first, lines)), place)
        header = [name.strip() for name in next(records, [])]
        if not header:
            return
        needed = [(name, header.index(name)) for name in rows.present(header, Place("the header"))]
        last = max(index for _, index in needed) if needed else 0
        for fields in records:
            if len(fields) <= last:
                part.left_out.bad(_fields(part, place, len(fields), len(header)), TOO_FEW)
            elif len(fields) > len(header) and any(fields[len(header) :]):
                part.left_out.bad(_fields(part, place, len(fields), len(header)), TOO_MANY)
            else:
                values = {name: fields[index] for name, index in needed}
                yield from rows.rows(values, place)


def inspected(lines: Sequence[str], columns: Columns, rows: RowMaker) -> Dialect:
    """Return the dialect of a file from its first lines.

    The delimiter is the one in the settings; otherwise the first with which the header has a user
    and a text column; otherwise the one that splits all lines into the same number of fields, at
    least two.
    """
    if columns.delimiter is not None:
        return _dialect(lines, "\t" if columns.delimiter == TAB else columns.delimiter)
    tables = {delimiter: _table(lines, delimiter) for delimiter in DELIMITERS}
    fitting = [d for d, table in tables.items() if rows.fits(name.strip() for name in table[0])]
    even = [d for d, t in tables.items() if len(t[0]) > 1 and len({len(r) for r in t if r}) == 1]
    return _dialect(lines, next(chain(fitting, even, DELIMITERS)))


def _dialect(lines: Sequence[str], delimiter: str) -> Dialect:
    _, *others = _table(lines[:1], delimiter)[0]
    return Dialect(delimiter, bool(others) and all(name.startswith(" ") for name in others))


def _table(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter)) or [[""]]
    except csv.Error:
        return [[""]]


def _with_delimiter(columns: Columns, delimiter: str) -> Columns:
    return Columns(columns.user, columns.text, columns.label, columns.delimiter or delimiter)


def _records(part: Part, reader: Any, place: Place) -> Iterator[list[str]]:
    """Yield non-empty records; invalid ones are left out or refused."""
    while True:
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            place.number = before + 1
            # An unclosed quotation mark may have consumed all following lines.
            lines = max(1, reader.line_num - before)
            problem = UserError(f"{part}, at {place.text}: not valid CSV: {error}")
            part.left_out.bad(problem, BAD_CSV, lines)
            continue
        place.number = reader.line_num
        if any(fields):
            yield fields


def _fields(part: Part, place: Place, found: int, expected: int) -> UserError:
    what = "more fields than the header has columns" if found > expected else "too few fields"
    return UserError(f"{part}, {place.text}: {what} ({found}, the header has {expected})")
