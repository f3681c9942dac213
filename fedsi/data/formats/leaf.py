"""LEAF JSON (Caldas et al., arXiv 1812.01097): Shakespeare, Sent140, Reddit.

A file is one object ``{"users": [...], "num_samples": [...], "user_data": {user: {"x", "y"}},
"hierarchies": [...]?}``. The examples are sentences of a user's ``raw`` text if LEAF kept it;
otherwise sentences of the text reconstructed from overlapping character windows (Shakespeare), rows
whose last field is the text (Sent140), or lists of tokens (Reddit).
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.cells import id_of
from fedsi.data.formats.files import Columns, Part, Place, faults, open_text
from fedsi.data.formats.tabular import distinct
from fedsi.data.formats.text import split_sentences
from fedsi.errors import UserError

_FEW = 8
"""Largest number of keys that an error lists."""
_MARKER = re.compile(r"<[A-Z]+>")
"""``<BOS>``, ``<EOS>``, ``<PAD>`` of the Reddit files; the protocol adds its own."""


def read_leaf(part: Part, _columns: Columns) -> Iterator[Row]:
    """Read one LEAF file, which must fit into memory, as for LEAF's own tools."""
    place = Place()
    with faults(part, place):
        with open_text(part) as file:
            content = json.load(file, object_pairs_hook=distinct)
        groups = _groups(content, part)
        for user, data in content["user_data"].items():
            place.text = f"user {user!r}"
            group = id_of(groups.get(user)) or user
            for text, label in _examples(data):
                yield Row(client=user, group=group, text=text, label=label)


def _groups(content: Any, part: Part) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get("user_data"), dict):
        raise UserError(
            f"{part} is {_what(content)}, not a LEAF file (users and user_data), an array of "
            "objects with a user and a text, an object with each user's list of texts, or an "
            "exported chat; write one of these"
        )
    users = content.get("users", [])
    if len(set(users)) < len(users) or not set(users) >= set(content["user_data"]):
        raise UserError(
            f"{part} is not a sound LEAF file: its users must be different and name every "
            "client of user_data; make the file again"
        )
    return dict(zip(users, content.get("hierarchies", []), strict=False))


def _what(content: Any) -> str:
    """Describe the content of a JSON file."""
    if not isinstance(content, dict):
        return "neither an object nor an array of objects"
    keys = ", ".join(map(repr, list(content)[:_FEW]))
    return f"a JSON object with {keys}" if keys else "an empty JSON object"


def _examples(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a user's (text, label) pairs."""
    x, y = data.get("x", []), data.get("y", [])
    if isinstance(data.get("raw"), str):
        yield from ((sentence, "") for sentence in split_sentences(data["raw"]))
    elif _is_windows(x, y):
        yield from ((sentence, "") for text in _unwind(x, y) for sentence in split_sentences(text))
    elif x and isinstance(x[0], list) and _is_tweet(x[0]):
        yield from ((str(row[-1]), id_of(label)) for row, label in zip(x, y, strict=True))
    else:
        yield from ((text, "") for example in x for text in _texts(example))


def _is_windows(x: list[Any], y: list[Any]) -> bool:
    """Whether these are windows of characters, each with the character that follows it."""
    return bool(x) and len(x) == len(y) and all(isinstance(c, str) and len(c) == 1 for c in y)


def _unwind(x: list[str], y: list[str]) -> Iterator[str]:
    """Join consecutive windows to the texts that they were taken from."""
    text, previous = "", None
    for window, following in zip(x, y, strict=True):
        if previous is not None and window == previous:
            text += following
        else:
            yield text
            text = window + following
        previous = window[1:] + following
    yield text


def _is_tweet(row: list[Any]) -> bool:
    """Whether a row is Sent140's: id, date, query, user name, text."""
    return len(row) == 5 and all(isinstance(field, str | int) for field in row) and " " in row[1]


def _texts(example: Any) -> Iterator[str]:
    """Yield the text of a string, or of each innermost list of tokens."""
    if isinstance(example, str):
        yield example
    elif isinstance(example, list) and all(isinstance(token, str) for token in example):
        yield " ".join(token for token in example if not _MARKER.fullmatch(token))
    elif isinstance(example, list):
        for part in example:
            yield from _texts(part)
    else:
        raise ValueError(f"an example is a {type(example).__name__}, expected text or tokens")
