"""Tables with a user and a text column: JSON lines, arrays of JSON objects, Parquet and Arrow."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import IO, Any

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults, lines_of, open_text
from fedsi.data.formats.rows import RowMaker
from fedsi.data.left_out_rows import BAD_JSON
from fedsi.errors import UserError
from fedsi.extras import optional

_BATCH = 4096
_CHUNK = 1 << 20


def read_jsonl(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a file with one JSON object per line."""
    place = Place()
    with faults(part, place), closing(lines_of(part, place)) as lines:
        rows = RowMaker(part, columns)
        for line in lines:
            if not line.strip():
                continue
            try:
                twice = any(line.count(name) > 1 for name in rows.in_quotes)
                values = json.loads(line, object_pairs_hook=distinct if twice else None)
            except (ValueError, RecursionError) as error:
                problem = UserError(f"{part}, {place.text}: not valid JSON: {error}")
                part.left_out.bad(problem, BAD_JSON)
                continue
            if isinstance(values, dict):
                yield from rows.rows(values, place)
            else:
                part.left_out.bad(_no_object(part, place), BAD_JSON)


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object without duplicate keys, of which Python would silently drop one value.

    Raises:
        ValueError: A key occurs twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"{counts.most_common(1)[0][0]!r} is there twice")
    return values


def read_json(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a file that is an array of JSON objects, or a sequence of objects."""
    place = Place()
    with faults(part, place), open_text(part) as file:
        rows = RowMaker(part, columns)
        for number, values in enumerate(_objects(file), start=1):
            place.text = f"object {number}"
            if isinstance(values, dict):
                yield from rows.rows(values, place)
            else:
                part.left_out.bad(_no_object(part, place), BAD_JSON)


def is_jsonl(head: str) -> bool:
    """Whether a file begins with one JSON object per line, at least two."""
    first, _, rest = head.lstrip().partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip().startswith("{")


def is_json_array(head: str) -> bool:
    """Whether a file begins like a JSON array."""
    return head.lstrip().startswith("[")


def _no_object(part: Part, place: Place) -> UserError:
    return UserError(f"{part}, {place.text}: expected a JSON object with named columns")


def _objects(file: IO[str]) -> Iterator[Any]:
    """Yield the items of an array, or a sequence of values, reading the file in chunks.

    Raises:
        ValueError: It is not valid JSON.
    """
    decode = json.JSONDecoder().raw_decode
    text = ""
    while not text and (more := file.read(_CHUNK)):
        text = more.lstrip()
    array = text.startswith("[")
    place = int(array)
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        if place < len(text) and text[place] == "]" and array:
            return
        try:
            value, end = decode(text, place)
        except json.JSONDecodeError:
            more = file.read(max(_CHUNK, len(text)))
            if not more:
                if place == len(text) and not array:
                    return
                raise
            text, place = text[place:] + more, 0
            continue
        yield value
        place = end


def read_parquet(part: Part, columns: Columns) -> Iterator[Row]:
    """Read a Parquet file in batches of rows."""
    parquet = optional("pyarrow.parquet", "parquet")
    place = Place("the header")
    with faults(part, place):
        file = parquet.ParquetFile(part.path, memory_map=True)
        rows = RowMaker(part, columns)
        needed = rows.present(file.schema_arrow.names, place)
        _refuse_maps(part, file.schema_arrow, needed)
        yield from _rows_of(file.iter_batches(_BATCH, columns=needed), rows, place)


def read_arrow(part: Part, columns: Columns) -> Iterator[Row]:
    """Read an Arrow file or stream; Feather files are Arrow files."""
    pyarrow = optional("pyarrow", "parquet")
    ipc = optional("pyarrow.ipc", "parquet")
    place = Place("the header")
    with faults(part, place), pyarrow.memory_map(str(part.path)) as source:
        is_file = source.read(len(_ARROW)) == _ARROW
        source.seek(0)
        reader = ipc.open_file(source) if is_file else ipc.open_stream(source)
        rows = RowMaker(part, columns)
        needed = rows.present(reader.schema.names, place)
        _refuse_maps(part, reader.schema, needed)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        yield from _rows_of(_checked(batches, needed), rows, place)


_ARROW = b"ARROW1"


def _refuse_maps(part: Part, schema: Any, columns: list[str]) -> None:
    """Refuse columns whose cells are maps, which Arrow would present as lists of pairs."""
    for name in columns:
        kind = str(schema.field(name).type)
        if kind.startswith("map<"):
            raise UserError(
                f"{part}, the header: column {name!r} holds a {kind}, expected text; make it a "
                "text column"
            )


def _checked(batches: Any, needed: list[str]) -> Iterator[Any]:
    """Yield small batches of the needed columns.

    Arrow trusts the offsets in a file. Without validation, damaged offsets crash the process.
    """
    for batch in batches:
        chosen = batch.select(needed)
        chosen.validate(full=True)
        for start in range(0, chosen.num_rows, _BATCH):
            yield chosen.slice(start, _BATCH)


def _rows_of(batches: Any, rows: RowMaker, place: Place) -> Iterator[Row]:
    place.what = "row"
    for batch in batches:
        for values in batch.to_pylist():
            place.number += 1
            yield from rows.rows(values, place)
