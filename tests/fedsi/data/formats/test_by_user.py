"""JSON objects from users to their texts, as opposed to other kinds of .json files."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.formats.opening import open_corpus


def rows_of(path: Path, content: Any, kind: str = "auto") -> list[Row]:
    path.write_text(json.dumps(content), encoding="utf-8")
    return list(open_corpus(path, kind).rows())


@pytest.mark.parametrize(
    "content",
    [
        {"ann": ["so it begins", "née"], "bob": ["no"]},
        {'bo"b\\': [], "ann": ["so it begins", "née"], "bob": ["no"]},
        {"ann": [["so", "it", "begins"], ["née"]], "bob": [["no"]]},
    ],
)
def test_texts_by_user_are_read(tmp_path: Path, content: Any) -> None:
    texts = [("ann", "so it begins"), ("ann", "née"), ("bob", "no")]
    assert rows_of(tmp_path / "t.json", content) == [Row(u, u, text) for u, text in texts]


def test_a_text_may_stand_alone_where_the_format_is_named(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "t.json", {"ann": "so it begins", "bob": ["no"]}, "by_user")
    assert [row.client for row in found] == ["ann", "bob"]


def test_a_leaf_file_stays_one(tmp_path: Path) -> None:
    data = {"ann": {"x": ["so it begins"], "y": [""]}}
    found = rows_of(tmp_path / "t.json", {"users": ["ann"], "num_samples": [1], "user_data": data})
    assert found == [Row("ann", "ann", "so it begins")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"user": ["ann"], "text": ["so"]}, r"t\.json holds columns \('user', 'text'\)"),
        ({"ann": [{"no": 1}]}, "LEAF"),
        ({"ann": [["a", 1], {"b": 2}]}, "user 'ann': an example is an object with 'b'"),
    ],
)
def test_other_objects_are_refused_in_a_sentence(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path / "t.json", content)
