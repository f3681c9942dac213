"""TensorFlow Federated's SQLite files, read in one pass without TensorFlow.

The tables are ``examples(split_name, client_id, serialized_example_proto)``, the last a
``tf.train.Example``, and ``client_metadata(client_id, split_name, num_examples)``. There is no
index on the client, so rows are read in the order in which they are stored.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fedsi.data.corpus import Row
from fedsi.data.formats.cells import id_of
from fedsi.data.formats.files import Columns, Part, Place, faults
from fedsi.data.formats.rows import TEXT_COLUMNS
from fedsi.data.formats.tf_example import read_features
from fedsi.data.left_out_rows import NO_USER
from fedsi.errors import UserError

EXAMPLES = "examples"


@contextmanager
def open_sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database that is not being written, without modifying any file.

    Rows in a log beside it are read too. Database and log are then copied first, because SQLite
    moves the log's content into the database when it opens them.
    """
    logs = logs_of(path)
    with ExitStack() as stack:
        immutable = "&immutable=1"
        if logs:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix=".with-log-")))
            for file in (path, *logs):
                shutil.copyfile(file, folder / file.name)
            path, immutable = folder / path.name, ""
        address = f"{path.resolve().as_uri()}?mode={'rw' if logs else 'ro'}{immutable}"
        yield stack.enter_context(closing(sqlite3.connect(address, uri=True)))


def logs_of(path: Path) -> list[Path]:
    """Return the log files beside a database that hold changes not yet in it."""
    beside = (path.with_name(path.name + ending) for ending in ("-wal", "-journal"))
    return [file for file in beside if file.is_file() and file.stat().st_size]


def tables_of(connection: sqlite3.Connection) -> set[str]:
    """Return the names of a database's tables."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def read_tff_sqlite(part: Part, columns: Columns) -> Iterator[Row]:
    """Read the examples of all splits."""
    place = Place()
    with faults(part, place), open_sqlite(part.path) as connection:
        there = tables_of(connection)
        if EXAMPLES not in there:
            raise UserError(
                f"{part} has no table {EXAMPLES!r}, which TFF's SQLite files have (tables there: "
                f"{', '.join(map(repr, sorted(there))) or 'none'}); export one with a user and a "
                "text as CSV, or name its kind with data.format"
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
                    f"{part}, {place.text}: no feature "
                    f"{' or '.join(map(repr, candidates))}; name yours with data.text_column"
                )
            label = found.get(columns.label.encode(), b"") if columns.label else b""
            client = id_of(stored)
            if client:
                yield Row(client, client, text.decode(), id_of(split), label.decode())
            else:
                part.left_out.counts[NO_USER] += 1
