"""Messages between the grid and its worker processes, as pieces of bytes.

The first piece is JSON. Each other piece is the file of an array as in Flower's record, so that a
large array is copied by the socket only. Messages are data; nothing in them is executed.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict


@dataclass(frozen=True)
class Frame:
    """A request or a reply.

    Args:
        kind: Flower's message type of a request; ``reply`` or ``error`` for a reply; ``died`` for
            a process that ended; ``late`` for one that did not reply in time.
        number: Distinguishes replies to different requests.
        content: The records; empty for an error.
        reason: The reason of an error.
    """

    kind: str
    number: int
    content: RecordDict
    reason: str = ""


def send(connection: Connection, frame: Frame) -> None:
    """Write a frame to a connection."""
    for piece in to_pieces(frame):
        connection.send_bytes(piece)


def receive(connection: Connection) -> Frame:
    """Wait for a frame and return it.

    Raises:
        EOFError: The other end closed.
    """
    return from_pieces(iter(connection.recv_bytes, None))


def to_pieces(frame: Frame) -> Iterator[bytes]:
    """Yield the pieces of a frame."""
    records = frame.content.array_records
    header = {
        "kind": frame.kind,
        "number": frame.number,
        "reason": frame.reason,
        "arrays": {
            record: {name: [a.dtype, a.shape, a.stype] for name, a in named.items()}
            for record, named in records.items()
        },
        "values": {name: dict(record) for name, record in frame.content.config_records.items()},
    }
    yield json.dumps(header).encode()
    for named in records.values():
        for array in named.values():
            yield array.data


def from_pieces(pieces: Iterable[bytes]) -> Frame:
    """Return the frame of some pieces, reading no more pieces than it has."""
    remaining = iter(pieces)
    header: dict[str, Any] = json.loads(next(remaining))
    records: dict[str, Any] = {
        record: ArrayRecord(
            {
                name: Array(dtype, tuple(shape), stype, next(remaining))
                for name, (dtype, shape, stype) in named.items()
            }
        )
        for record, named in header["arrays"].items()
    }
    records |= {name: ConfigRecord(values) for name, values in header["values"].items()}
    return Frame(header["kind"], header["number"], RecordDict(records), header["reason"])
