"""Chats exported from phones: lines ``date, time - name: text``, or JSON with ``messages``.

The author of a message is the client; a message is an example. WhatsApp exports lines, in the date
order and with the separators of the phone's language. Exporters of Telegram, Messenger, Instagram
and Discord write JSON.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.cells import id_of
from fedsi.data.formats.files import Columns, Part, Place, faults, head_of, lines_of, open_text
from fedsi.data.left_out_rows import NO_MESSAGE, NO_USER
from fedsi.errors import UserError

_MESSAGE = re.compile(
    r"""
    [\u200e\u200f\u202a\ufeff]* (?P<bracket>\[)?
    \d{1,4} [./-] \s? \d{1,2} [./-] \s? \d{1,4} \.?    # 12/31/20, 2020-12-31, 2020. 12. 31.
    [,،]? \s+ (?:[^\W\d]{1,8}\.? \s?)?                 # à, um, klo; am and pm before the time
    \d{1,2} [:.] \d{2} (?:[:.] \d{2})?
    (?:\s? [ap]\.? \s? m\.? | \s? [^\W\d_]{1,10}\.?)?  # AM, p. m., Uhr
    (?(bracket) \]\s | \s[-\u2013\u2014]\s)
    (?: (?P<name>[^:\n“”"]{1,80}?) \s? : (?:\s|$) )?
    (?P<text>.*)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_PROGRAM_S_WORDS = re.compile(r"\u200e.*|<[^<>]+>|.*\(file attached\)", re.DOTALL)
"""Placeholders for pictures and notices of deleted messages."""

_EDITED = re.compile(r"\s*\u200e?<[^<>]+>\s*$")
_LOOKED_AT, _FEWEST = 30, 2
"""Lines examined at the beginning of a text file, and how many of them must be messages."""

_FROM = ("sender_name", "from", "author", "sender", "user", "from_id")
_TEXT = ("text", "content", "body", "message")
_NAMES = ("name", "username", "display_name", "id")
_MESSAGES = re.compile(r'"messages"\s*:\s*\[')
_SENDER = re.compile(rf'"({"|".join(_FROM)})"\s*:')


def is_chat(head: str) -> bool:
    """Whether a file begins like an exported chat."""
    if head.lstrip().startswith("{"):
        return bool(_MESSAGES.search(head) and _SENDER.search(head))
    lines = [line for line in head.splitlines() if line.strip()][:_LOOKED_AT]
    found = [match for line in lines if (match := _MESSAGE.match(line))]
    return (
        bool(lines and _MESSAGE.match(lines[0]))
        and sum(match["name"] is not None for match in found) >= _FEWEST
    )


def read_chat(part: Part, _columns: Columns) -> Iterator[Row]:
    """Read an exported chat, text or JSON."""
    head = head_of(part).lstrip()
    if head.startswith(("{", "[")) and not _MESSAGE.match(head):
        yield from _read_json(part)
    else:
        yield from _read_lines(part)


def _read_lines(part: Part) -> Iterator[Row]:
    place = Place()
    with faults(part, place), closing(lines_of(part, place)) as lines:
        name, text = None, ""
        begun = False
        for line in lines:
            message = _MESSAGE.match(line)
            if message is None:
                text += line
                continue
            if begun:
                yield from _row(part, name, text)
            begun, name, text = True, message["name"], message["text"]
        if not begun:
            raise UserError(
                f"{part} holds no line 'date, time - name: text', as an exported chat does; name "
                "its kind with data.format"
            )
        yield from _row(part, name, text)


def _row(part: Part, name: str | None, text: str) -> Iterator[Row]:
    user = (name or "").strip("\u200e\u200f\u202a\u202c~ \u202f\xa0")
    written = _EDITED.sub("", text).strip()
    if not user or _PROGRAM_S_WORDS.fullmatch(text.strip()):
        part.left_out.counts[NO_MESSAGE] += 1
    else:
        yield Row(user, user, written)


def _read_json(part: Part) -> Iterator[Row]:
    place = Place()
    with faults(part, place):
        with open_text(part) as file:
            content = json.load(file)
        chats = list(_chats(content))
        if not chats:
            raise UserError(
                f"{part} holds no list of messages, as an exported chat does; name its kind with "
                "data.format"
            )
        for messages in chats:
            for number, message in enumerate(messages, start=1):
                place.text = f"message {number}"
                yield from _json_row(part, message)


def _chats(content: Any) -> Iterator[list[Any]]:
    """Yield all lists called ``messages``, at any depth."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key == "messages" and isinstance(value, list):
                yield value
            else:
                yield from _chats(value)
    elif isinstance(content, list):
        for value in content:
            yield from _chats(value)


def _json_row(part: Part, message: Any) -> Iterator[Row]:
    if not isinstance(message, Mapping) or message.get("type") == "service":
        part.left_out.counts[NO_MESSAGE] += 1
        return
    user = next((found for key in _FROM if (found := _name(message.get(key)))), "")
    text = next((_joined(message[key]) for key in _TEXT if key in message), "")
    if "sender_name" in message:
        user, text = _mended(user), _mended(text)
    if user:
        yield Row(user, user, text)
    else:
        part.left_out.counts[NO_USER] += 1


def _name(value: Any) -> str:
    if isinstance(value, Mapping):
        return next((found for key in _NAMES if (found := id_of(value.get(key)))), "")
    return id_of(value)


def _joined(value: Any) -> str:
    """Return a text whose parts may be objects, such as links or bold text."""
    if isinstance(value, Mapping):
        return _joined(value.get("text"))
    if isinstance(value, list):
        return "".join(map(_joined, value))
    return id_of(value)


def _mended(text: str) -> str:
    """Return a text after decoding UTF-8 that Messenger and Instagram write byte by byte."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
