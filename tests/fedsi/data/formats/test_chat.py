"""Chats as phones export them, in many languages' dates and times."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsi import UserError
from fedsi.data.formats.chat import is_chat
from fedsi.data.formats.opening import open_corpus

STAMPS = [
    "12/31/20, 9:41 PM - ",
    "12/31/20, 9:41\u202fPM - ",
    "[12/31/20, 9:41:05 PM] ",
    "\u200e[31.12.20, 21:41:05] ",
    "31.12.20, 21:41 - ",
    "31.12.2020 21:41 - ",
    "31/12/2020 21:41 - ",
    "31/12/2020 à 21:41 - ",
    "31/12/20, 9:41 p. m. - ",
    "31/12/20 21:41 - ",
    "31.12.2020 klo 21.41 - ",
    "31.12.20, 21:41 Uhr - ",
    "2020-12-31 21:41 - ",
    "[2020-12-31 21:41:05] ",
    "2020/12/31 下午9:41 - ",
    "2020. 12. 31. 오후 9:41 - ",
    "31-12-2020 21:41 - ",
    "٣١/١٢/٢٠٢٠، ٩:٤١ م - ",
]

MESSAGES = [
    ("Messages are end-to-end encrypted. Tap to learn more.", None),
    ("Ann created group “Friends”", None),
    ("Ann: so it begins", ("Ann", "so it begins")),
    ("Bob B.: at 10:30: the door\nis open", ("Bob B.", "at 10:30: the door\nis open")),
    ("+49 170 1234567: it ends 😀", ("+49 170 1234567", "it ends 😀")),
    ("Ann: <Media omitted>", None),
    ("Ann: \u200eimage omitted", None),
    ("Ann changed the subject from “a: b” to “c: d”", None),
    ("Ann: and so on <This message was edited>", ("Ann", "and so on")),
]  # fmt: skip
EXPECTED = [found for _, found in MESSAGES if found]


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def read(path: Path, kind: str = "auto") -> tuple[list[tuple[str, str]], dict[str, int]]:
    corpus = open_corpus(path, kind)
    rows = [(row.client, row.text) for row in corpus.rows()]
    return rows, dict(corpus.left_out.counts)


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_date_time_name_and_text(tmp_path: Path, stamp: str, end: str) -> None:
    content = "".join(f"{stamp}{text}\n" for text, _ in MESSAGES).replace("\n", end)
    rows, left_out = read(write(tmp_path / "chat.txt", content))
    assert [(name, text.replace("\r", "")) for name, text in rows] == EXPECTED
    assert left_out == {"of the chat program, not of a person": len(MESSAGES) - len(EXPECTED)}


@pytest.mark.parametrize(
    "text",
    [
        "so it begins\nand so it ends\n",
        "2020-12-31 21:41 - woke up\n2021-01-01 10:00 - slept\n",
        "31.12.20: fireworks\n1.1.21: nothing\n",
        "",
    ],
)
def test_other_texts_are_no_chats(tmp_path: Path, text: str) -> None:
    assert not is_chat(text)
    (tmp_path / "diaries").mkdir()
    path = write(tmp_path / "diaries" / "ann.txt", text)
    assert {client for client, _ in read(path.parent)[0]} <= {"ann"}
    with pytest.raises(UserError, match=r"no line 'date, time - name: text'"):
        read(write(tmp_path / "c.txt", "nothing of the kind"), "chat")


TELEGRAM = {
    "name": "Friends",
    "type": "private_group",
    "messages": [
        {"id": 1, "type": "service", "actor": "Ann", "action": "create_group", "text": ""},
        {"id": 2, "type": "message", "from": "Ann", "from_id": "user1", "text": "so it begins"},
        {
            "id": 3,
            "type": "message",
            "from": None,
            "from_id": "user2",
            "text": ["see ", {"type": "link", "text": "this page"}, " now"],
        },
        {"id": 4, "type": "message", "from": "Ann", "photo": "a.jpg", "text": ""},
    ],
}
MESSENGER = {
    "participants": [{"name": "Ann"}],
    "messages": [
        {"sender_name": "Andr\u00c3\u00a9", "content": "caf\u00c3\u00a9 \u00f0\u009f\u0098\u0080"},
        {"sender_name": "Ann", "timestamp_ms": 2, "photos": []},
        {"sender_name": "Ann", "timestamp_ms": 3, "content": "café"},
    ],
}  # fmt: skip
DISCORD = {
    "guild": {"id": "1"},
    "messages": [
        {"id": "1", "type": "Default", "content": "hi", "author": {"id": "9", "name": "ann"}},
        {"id": "2", "type": "Default", "content": "who?", "author": {}},
    ],
}
JSON: dict[str, tuple[Any, list[tuple[str, str]], dict[str, int]]] = {
    "telegram": (
        TELEGRAM,
        [("Ann", "so it begins"), ("user2", "see this page now"), ("Ann", "")],
        {"of the chat program, not of a person": 1},
    ),
    "all chats of telegram": (
        {"about": "x", "chats": {"list": [TELEGRAM, TELEGRAM]}},
        [("Ann", "so it begins"), ("user2", "see this page now"), ("Ann", "")] * 2,
        {"of the chat program, not of a person": 2},
    ),
    "messenger": (MESSENGER, [("André", "café 😀"), ("Ann", ""), ("Ann", "café")], {}),
    "discord": (DISCORD, [("ann", "hi")], {"without a user": 1}),
}


@pytest.mark.parametrize("kind", JSON)
@pytest.mark.parametrize("indent", [None, 1])
def test_exports_as_json(tmp_path: Path, kind: str, indent: int | None) -> None:
    content, rows, left_out = JSON[kind]
    path = write(tmp_path / "result.json", json.dumps(content, indent=indent))
    assert read(path) == (rows, left_out)


@pytest.mark.parametrize("content", ["{}", "[]", '{"messages": {"a": 1}}', "[1, 2]"])
def test_json_without_messages_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match="holds no list of messages"):
        read(write(tmp_path / "c.json", content), "chat")
