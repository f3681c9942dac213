import csv
import gzip
import json
from pathlib import Path

import pytest

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.formats.files import Columns
from fedsi.data.formats.opening import open_corpus

ROWS = [("ann", 'so it, "begins"\nhere'), ("bob", "née Ümlaut"), ("ann", "")]


def rows_of(path: Path, user: str | None = None, text: str | None = None) -> list[Row]:
    return list(open_corpus(path, columns=Columns(user, text, "label")).rows())


def write(path: Path) -> Path:
    if ".jsonl" in path.name:
        content = "".join(json.dumps({"user": u, "text": t}) + "\n" for u, t in ROWS)
    else:
        with path.with_suffix(".part").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("user", "text"), *ROWS])
        content = path.with_suffix(".part").read_bytes().decode()
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.jsonl.gz", "T.CSV.gz"])
def test_all_formats_give_the_same_rows(tmp_path: Path, name: str) -> None:
    assert rows_of(write(tmp_path / name)) == [Row(u, u, t) for u, t in ROWS]


def test_group_column_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfwho,what,group,split,label\nann,hello,g,dev,3\nbob,hi,,,\n")
    assert rows_of(path, "who", "what") == [
        Row("ann", "g", "hello", "dev", "3"),
        Row("bob", "bob", "hi"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("t.jsonl", b'{"user": "a", "text": "b"}\n{"user": ', r"t.jsonl, line 2: not valid JSON"),
        ("t.jsonl", b'["a", "b"]\n', "line 1: expected a JSON object"),
        (
            "t.jsonl",
            b'{"name": "a", "text": "b"}\n',
            "no column 'user' or .*; columns there: name, text",
        ),
        ("t.jsonl", b'{"user": "a", "text": [1, 2]}\n', "column 'text' holds a list of numbers"),
        ("t.jsonl", b'{"user": "a", "text": "\xff"}\n', "not valid UTF-8 .*byte 0xff"),
        ("t.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("t.csv", b"name,text\na,b\n", "no column 'user' or .*; columns there: name, text"),
        ("t.csv", b"user^text\na^b\n", "if these are several, set data.delimiter; else name yours"),
        ("t.csv", b"user,text\na,b,c\n", "line 2: more fields than the header"),
        ("t.csv", b'user,text\na,"b\n', "not valid CSV: unexpected end of data"),
        ("t.csv", b"user,text\na,\xff\xfe\n", r"not valid UTF-8 \(at line 2: byte 0xff\)"),
        ("t.jsonl.gz", b"plain text", "is damaged"),
        (
            "t.jsonl.gz",
            gzip.compress(b'{"user": "a", "text": "b"}\n' * 99, mtime=0)[:-9],
            "is damaged",
        ),
    ],
)
def test_bad_content_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=expected) as error:
        rows_of(path)
    assert "\n" not in str(error.value)


def test_odd_content_is_text_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    odd = ["a\0b", "x" * 1_000_000, "line\u2028separator", "\ud800 lone"]
    path.write_text("".join(json.dumps({"user": "u\0", "text": text}) + "\n" for text in odd))
    assert [(row.client, row.text) for row in rows_of(path)] == [("u\0", text) for text in odd]
