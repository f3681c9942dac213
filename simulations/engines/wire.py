"""Messages between the grid and its worker processes, as pieces of bytes.

The first piece is JSON, and goes through a socket. Each other piece is the file of an array as in
Flower's record; these lie in shared memory, where copying takes half the time. They are written
before the first piece is sent and read after it has arrived, so what a process that is killed or
stopped leaves half-written is never read. Messages are data; nothing in them is executed.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from simulations.engines import shared_memory


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


class Channel:
    """An end of the connection between the grid and a worker process.

    Args:
        connection: The socket.
        outgoing: Shared memory that this end writes.
        incoming: Shared memory that the other end writes.
    """

    def __init__(self, connection: Connection, outgoing: int, incoming: int) -> None:
        self.connection = connection
        self._outgoing, self._incoming = outgoing, incoming
        self.shared = False
        """Whether the arrays of the frame that was last received lay in shared memory."""

    def send(self, frame: Frame, *, shared: bool) -> None:
        """Write a frame.

        Args:
            frame: The frame.
            shared: Whether its arrays go into shared memory, which the other end must have read:
                it has answered all requests, or this is the answer to such a request.

        Raises:
            SharedMemoryError: They do not fit.
        """
        head, *arrays = to_pieces(frame)
        if shared:
            shared_memory.write(self._outgoing, arrays)
        sizes = [len(piece) for piece in arrays] if shared else None
        for piece in (head, json.dumps(sizes).encode(), *([] if shared else arrays)):
            self.connection.send_bytes(piece)

    def receive(self) -> Frame:
        """Wait for a frame and return it.

        Raises:
            EOFError: The other end closed.
        """
        head, sizes = self.connection.recv_bytes(), json.loads(self.connection.recv_bytes())
        self.shared = sizes is not None
        if self.shared:
            return from_pieces([head, *shared_memory.read(self._incoming, sizes)])
        return from_pieces(chain([head], iter(self.connection.recv_bytes, None)))


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
