"""TensorFlow Federated's SQLite files, read in one pass without TensorFlow.

``examples(split_name, client_id, serialized_example_proto)``, the last a ``tf.train.Example``;
``client_metadata(client_id, split_name, num_examples)``. There is no index on the client, so rows
are read in the order in which they lie.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults
from fedsi.data.formats.tables import TEXT_COLUMNS
from fedsi.data.formats.tf_example import read_features
from fedsi.errors import UserError

EXAMPLES = "examples"


def open_sqlite(path: Path) -> sqlite3.Connection:
    """Open a database that nobody else writes, without touching anything beside it."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def tables_of(connection: sqlite3.Connection) -> set[str]:
    """Return the names of a database's tables."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def client_id(stored: object) -> str:
    """Return a client's id as text, of whatever type the database has it.

    Raises:
        ValueError: There is none.
    """
    if stored is None:
        raise ValueError("a client without an id")
    return stored.decode() if isinstance(stored, bytes) else str(stored)


def read_tff_sqlite(part: Part, columns: Columns) -> Iterator[Row]:
    """Read the examples of all splits."""
    place = Place()
    with faults(part.path, place), closing(open_sqlite(part.path)) as connection:
        if EXAMPLES not in tables_of(connection):
            raise UserError(
                f"{part.path} has no table {EXAMPLES!r}, which TFF's SQLite files have; name its "
                "kind with data.format"
            )
        candidates = (columns.text,) if columns.text else TEXT_COLUMNS
        wanted = frozenset(name.encode() for name in (*candidates, columns.label) if name)
        query = f"SELECT split_name, client_id, serialized_example_proto FROM {EXAMPLES}"  # noqa: S608
        for number, (split, stored, example) in enumerate(connection.execute(query), start=1):
            place.text = f"row {number}"
            found = read_features(example, wanted)
            text = next((found[name] for c in candidates if (name := c.encode()) in found), None)
            if text is None:
                raise UserError(
                    f"{part.path}, {place.text}: no feature "
                    f"{' or '.join(map(repr, candidates))}; name yours with data.text_column"
                )
            label = found.get(columns.label.encode(), b"") if columns.label else b""
            client = client_id(stored)
            yield Row(client, client, text.decode(), str(split or ""), label.decode())
