"""Conversion of table cells of any type to a client's id or to texts.

Values come from JSON, Arrow, NumPy, PyTorch, pandas and databases. None, NaN and NaT are missing;
zero, false and empty texts are values.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any
from uuid import UUID

_Scalar = str | int | float | Decimal | date | time | UUID


class CellError(ValueError):
    """A cell that is not text; the message says what it is and what to do."""


def id_of(value: Any) -> str:
    """Return a value as a client's id, a group, a split or a label; empty if it is missing.

    Whole floats are written as integers, because a missing value turns a column of integers into
    floats. Bytes that are not printable text are written in hexadecimal.

    Raises:
        CellError: The value is a list or an object.
    """
    if type(value) is str:
        return value
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return _id_of_bytes(value)
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, _Scalar):
        return str(value)
    raise CellError(_what(value))


def texts_of(value: Any) -> list[str]:
    """Return the texts of a cell; each is an example.

    A list of tokens is one text: its non-empty tokens joined by spaces. A list with items of
    several words is a list of texts. Nested lists yield the texts of each list.

    Raises:
        CellError: The value is an object, or holds numbers instead of words.
        UnicodeDecodeError: The value is bytes that are not UTF-8.
    """
    if type(value) is str:
        return [value]
    value = _plain(value)
    if isinstance(value, bytes):
        return [value.decode()]
    if not isinstance(value, list | tuple):
        return [id_of(value)]
    items = [_plain(item) for item in value]
    objects = [item for item in items if isinstance(item, Mapping)]
    if objects:
        keys = ", ".join(map(repr, list(objects[0])[:8]))
        raise CellError(f"a list of objects with {keys}; write a text in the place of each")
    if any(isinstance(item, list | tuple) for item in items):
        return [text for item in items for text in texts_of(item)]
    if items and all(isinstance(item, int | float) for item in items):
        raise CellError(
            "a list of numbers, not of words; write the words in the place of their ids"
        )
    tokens = [item.decode() if isinstance(item, bytes) else id_of(item) for item in items]
    if any(len(token.split()) > 1 for token in tokens):
        return tokens
    return [" ".join(filter(None, tokens))]


def inside(values: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of names in nested objects, or None if it is missing.

    Raises:
        CellError: A value on the path is not an object.
    """
    for name in path:
        if values is None:
            return None
        if not isinstance(values, Mapping):
            raise CellError(f"{_what(values)}, in which there is no {name!r}")
        values = values.get(name)
    return values


def _plain(value: Any) -> Any:
    """Return a Python scalar or list for a value of NumPy, PyTorch, Arrow or pandas."""
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "as_py"):
        value = value.as_py()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if type(value).__name__ in {"NaTType", "NAType"} else value


def _id_of_bytes(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()


def _what(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(map(repr, list(value)[:8]))
        return (
            f"an object with {keys or 'nothing in it'}; name the column, a dot and one of these, "
            "as in user.id"
        )
    kind = "list" if isinstance(value, list | tuple) else type(value).__name__
    return f"a {kind}, expected text; make it a text column"
