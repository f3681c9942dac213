"""Chats as phones export them: lines of ``date, time - name: text``, or JSON with ``messages``.

Who wrote a message is the client, a message is an example. WhatsApp writes the lines, in the order
and with the separators that the phone's language has; Telegram, Messenger, Instagram and Discord
exporters write the JSON.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from fedsi.data.corpus import Row
from fedsi.data.formats.cells import id_of
from fedsi.data.formats.files import Columns, Part, Place, faults, head_of, lines_of, open_text
from fedsi.data.left_out import NO_MESSAGE, NO_USER
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
"""What stands in the place of a picture, or says that a message was deleted."""

_EDITED = re.compile(r"\s*\u200e?<[^<>]+>\s*$")
_LOOKED_AT, _FEWEST = 30, 2
"""Lines of a text file's beginning, and how many of them must be messages."""

_FROM = ("sender_name", "from", "author", "sender", "user", "from_id")
_TEXT = ("text", "content", "body", "message")
_NAMES = ("name", "username", "display_name", "id")
_MESSAGES = re.compile(r'"messages"\s*:\s*\[')
_SENDER = re.compile(rf'"({"|".join(_FROM)})"\s*:')


def begins(head: str) -> bool:
    """Whether a file begins as an exported chat."""
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
    """Yield the lists called ``messages``, wherever they are."""
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
    """Return a text; parts with a link or in bold are objects with a text of their own."""
    if isinstance(value, Mapping):
        return _joined(value.get("text"))
    if isinstance(value, list):
        return "".join(map(_joined, value))
    return id_of(value)


def _mended(text: str) -> str:
    """Return the text of which Messenger and Instagram write each byte of UTF-8 as a character."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
