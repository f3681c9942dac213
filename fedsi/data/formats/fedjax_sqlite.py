"""FedJAX's SQLite files (Ro et al., arXiv 2108.02117, ``fedjax.datasets``).

The table is ``federated_data(client_id BLOB, data BLOB, num_examples INTEGER)``; ``data`` is a
zlib-compressed msgpack map from feature to array. Arrays are msgpack extensions: 1 is (shape,
dtype, buffer) and 4 is (shape, list of byte strings).
"""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from fedsi.data.corpus import Row
from fedsi.data.formats.cells import id_of
from fedsi.data.formats.files import Columns, Part, Place, faults
from fedsi.data.formats.rows import TEXT_COLUMNS, no_feature, rows_of_client
from fedsi.data.formats.tff_sqlite import open_sqlite, tables_of
from fedsi.errors import UserError
from fedsi.extras import optional

TABLE = "federated_data"
_NUMBERS, _BYTE_STRINGS = 1, 4
_LARGEST_CLIENT = 1 << 30
"""Size limit in bytes, so that a damaged length cannot exhaust memory."""


def read_fedjax_sqlite(part: Part, columns: Columns) -> Iterator[Row]:
    """Read the examples of every client."""
    msgpack = optional("msgpack", "fedjax")
    place = Place()
    with faults(part, place), open_sqlite(part.path) as connection:
        if TABLE not in tables_of(connection):
            raise UserError(
                f"{part} has no table {TABLE!r}, which FedJAX's SQLite files have; name its "
                "kind with data.format"
            )
        query = f"SELECT client_id, data FROM {TABLE}"  # noqa: S608
        candidates = (columns.text,) if columns.text else TEXT_COLUMNS
        for identifier, packed in connection.execute(query):
            place.text = f"client {identifier!r}"
            client = id_of(identifier)
            place.text = f"client {client!r}"
            unpacked = zlib.decompressobj().decompress(packed, _LARGEST_CLIENT)
            features = msgpack.unpackb(unpacked, ext_hook=_extension(msgpack), raw=False)
            name = next((name for name in candidates if name in features), None)
            if name is None:
                raise no_feature(part, features, candidates)
            yield from rows_of_client(
                part, place, client, features[name], _labels(features, columns)
            )


def _labels(features: dict[str, Any], columns: Columns) -> list[Any] | None:
    return features.get(columns.label) if columns.label else None


def _extension(msgpack: Any) -> Any:
    def decode(code: int, data: bytes) -> list[Any]:
        if code == _BYTE_STRINGS:
            shape, values = msgpack.unpackb(data, raw=True)
            cells = np.empty(len(values), dtype=object)
            cells[:] = values
            return list(cells.reshape(shape).tolist())
        if code == _NUMBERS:
            shape, dtype, buffer = msgpack.unpackb(data, raw=True)
            values = np.frombuffer(buffer, dtype=np.dtype(dtype.decode())).reshape(shape)
            return list(values.tolist())
        raise ValueError(f"the unknown extension {code}")

    return decode
