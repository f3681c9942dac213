"""Messages between the grid and its worker processes, as bytes.

A safetensors file holds the arrays, with a JSON header for the rest: data only, nothing that could
be executed.
"""

import json
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from safetensors.numpy import load, save

_HEADER = "message"


@dataclass(frozen=True)
class Frame:
    """A request or a reply.

    Args:
        kind: A request's Flower message type; of a reply, ``reply`` or ``error``.
        number: Tells replies to different requests apart.
        content: The records; empty for an error.
        reason: What went wrong, for an error.
    """

    kind: str
    number: int
    content: RecordDict
    reason: str = ""


def encode(frame: Frame) -> bytes:
    """Return a frame as bytes."""
    arrays = {
        f"{record}/{name}": array.numpy()
        for record, named in frame.content.array_records.items()
        for name, array in named.items()
    }
    header = {
        "kind": frame.kind,
        "number": frame.number,
        "reason": frame.reason,
        "arrays": list(frame.content.array_records),
        "values": {name: dict(record) for name, record in frame.content.config_records.items()},
    }
    return bytes(save(arrays, metadata={_HEADER: json.dumps(header)}))


def decode(data: bytes) -> Frame:
    """Return the frame in some bytes."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_HEADER])
    records: dict[str, Any] = {name: ArrayRecord() for name in header["arrays"]}
    for path, array in load(data).items():
        record, _, name = path.partition("/")
        records[record][name] = Array(array)
    records |= {name: ConfigRecord(values) for name, values in header["values"].items()}
    return Frame(header["kind"], header["number"], RecordDict(records), header["reason"])
