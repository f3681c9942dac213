"""A reader of ``tf.train.Example``, with the needed part of the protocol buffers wire format.

The messages (tensorflow/core/example/example.proto and feature.proto)::

    Example   { 1: Features }
    Features  { 1: map entry, repeated { 1: key, 2: Feature } }
    Feature   { 1: BytesList { 1: bytes, repeated } | 2: FloatList | 3: Int64List }
"""

from collections.abc import Iterator

_LENGTH_DELIMITED = 2
_VARINT, _FIXED64, _FIXED32 = 0, 1, 5
_FIRST, _SECOND = 1, 2
_INTEGERS = 3


def read_features(example: bytes, wanted: frozenset[bytes]) -> dict[bytes, bytes]:
    """Return the values of the wanted features that exist, joined by spaces.

    Several values are the tokens of a text. Integers, such as labels, are written in decimal.

    Raises:
        ValueError: The bytes are not an Example.
    """
    if not isinstance(example, bytes):
        raise ValueError(f"an example is a {type(example).__name__}, expected bytes")
    found: dict[bytes, bytes] = {}
    for number, start, end in _submessages(example, 0, len(example)):
        if number != _FIRST:
            continue
        for _, entry, entry_end in _submessages(example, start, end):
            parts = {n: (a, b) for n, a, b in _submessages(example, entry, entry_end)}
            if _FIRST not in parts or _SECOND not in parts:
                continue
            key = example[slice(*parts[_FIRST])]
            if key in wanted:
                found[key] = b" ".join(_values(example, *parts[_SECOND]))
    return found


def _values(example: bytes, start: int, end: int) -> Iterator[bytes]:
    for kind, list_start, list_end in _submessages(example, start, end):
        for _, first, last in _submessages(example, list_start, list_end):
            if kind == _FIRST:
                yield example[first:last]
            elif kind == _INTEGERS:  # packed
                yield from _integers(example, first, last)


def _integers(example: bytes, position: int, end: int) -> Iterator[bytes]:
    while position < end:
        value, position = _varint(example, position, end)
        yield b"%d" % (value - (1 << 64) if value >> 63 else value)


def _submessages(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end) of the length-delimited fields of a message."""
    while position < end:
        tag, position = _varint(data, position, end)
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            size, position = _varint(data, position, end)
            if position + size > end:
                raise ValueError("a field of the example is longer than the example")
            yield tag >> 3, position, position + size
            position += size
        elif wire_type == _VARINT:
            _, position = _varint(data, position, end)
        elif wire_type in {_FIXED64, _FIXED32}:
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"the example has the unknown wire type {wire_type}")
    if position > end:
        raise ValueError("the example is cut off")


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number of the example is cut off")
