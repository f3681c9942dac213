"""FedJAX's SQLite files (Ro et al., arXiv 2108.02117, ``fedjax.datasets``).

``federated_data(client_id BLOB, data BLOB, num_examples INTEGER)``; ``data`` is a zlib-compressed
msgpack map from feature to array. Arrays are msgpack extensions: 1 is (shape, dtype, buffer) and 4
is (shape, list of byte strings).
"""

import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults, optional
from fedsi.data.formats.tables import TEXT_COLUMNS, no_feature
from fedsi.data.formats.tff_sqlite import client_id, open_sqlite, tables_of
from fedsi.errors import UserError

TABLE = "federated_data"
_NUMBERS, _BYTE_STRINGS = 1, 4
_LARGEST_CLIENT = 1 << 30
"""Bytes; a damaged length must not fill the memory."""


def read_fedjax_sqlite(part: Part, columns: Columns) -> Iterator[Row]:
    """Read the examples of every client."""
    msgpack = optional("msgpack", "fedjax")
    place = Place()
    with faults(part.path, place), closing(open_sqlite(part.path)) as connection:
        if TABLE not in tables_of(connection):
            raise UserError(
                f"{part.path} has no table {TABLE!r}, which FedJAX's SQLite files have; name its "
                "kind with data.format"
            )
        query = f"SELECT client_id, data FROM {TABLE}"  # noqa: S608
        candidates = (columns.text,) if columns.text else TEXT_COLUMNS
        for identifier, packed in connection.execute(query):
            place.text = f"client {identifier!r}"
            client = client_id(identifier)
            place.text = f"client {client!r}"
            unpacked = zlib.decompressobj().decompress(packed, _LARGEST_CLIENT)
            features = msgpack.unpackb(unpacked, ext_hook=_extension(msgpack), raw=False)
            name = next((name for name in candidates if name in features), None)
            if name is None:
                raise no_feature(part, features, candidates)
            texts = _strings(features[name])
            labels = [""] * len(texts)
            if columns.label and columns.label in features:
                labels = _strings(features[columns.label])
            for text, label in zip(texts, labels, strict=True):
                yield Row(client=client, group=client, text=text, label=label)


def _extension(msgpack: Any) -> Any:
    def decode(code: int, data: bytes) -> list[Any]:
        if code == _BYTE_STRINGS:
            _, values = msgpack.unpackb(data, raw=True)
            return list(values)
        if code == _NUMBERS:
            _, dtype, buffer = msgpack.unpackb(data, raw=True)
            values = np.frombuffer(buffer, dtype=np.dtype(dtype.decode())).tolist()
            return list(values)
        raise ValueError(f"the unknown extension {code}")

    return decode


def _strings(values: list[Any]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
