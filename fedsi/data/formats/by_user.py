"""JSON objects with the texts of each user: ``{"ann": ["so it begins", ...], "bob": [...]}``."""

import json
import re
from collections.abc import Iterator

from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns, Part, Place, faults, open_text
from fedsi.data.formats.rows import TEXT_COLUMNS, USER_COLUMNS, rows_of_client
from fedsi.data.formats.tabular import distinct
from fedsi.errors import UserError

_BEGINNING = re.compile(r'\s*\{\s*"(?P<key>[^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*\[\s*["\[\]]')
_OF_LEAF = {"users", "num_samples", "user_data", "hierarchies"}
_COLUMNS = {*USER_COLUMNS, *TEXT_COLUMNS}


def is_by_user(head: str) -> bool:
    """Whether a file begins with a key and a list of texts, or of lists."""
    found = _BEGINNING.match(head)
    return found is not None and found["key"] not in _OF_LEAF


def read_by_user(part: Part, _columns: Columns) -> Iterator[Row]:
    """Read one file, which must fit into memory."""
    place = Place()
    with faults(part, place):
        with open_text(part) as file:
            content = json.load(file, object_pairs_hook=distinct)
        if not isinstance(content, dict):
            raise UserError(f"{part} is no JSON object from users to their texts")
        if _COLUMNS & set(content):
            named = ", ".join(map(repr, content))
            raise UserError(
                f"{part} holds columns ({named}), not the texts of each user; write an array of "
                "objects with a user and a text, or CSV"
            )
        for user, texts in content.items():
            place.text = f"user {user!r}"
            values = texts if isinstance(texts, list) else [texts]
            yield from rows_of_client(part, place, user, values, None)
