import json
from pathlib import Path
from typing import Any

import pytest

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.formats.opening import open_corpus


def read(tmp_path: Path, data: dict[str, Any], **more: Any) -> list[Row]:
    path = tmp_path / "leaf.json"
    path.write_text(json.dumps({"users": list(data), "user_data": data, **more}))
    return list(open_corpus(path).rows())


def test_shakespeare_prefers_the_raw_text_and_knows_the_play(tmp_path: Path) -> None:
    data = {"PLAY_ANN": {"raw": "It begins. So it ends!\nNew line", "x": ["x" * 80], "y": ["y"]}}
    rows = read(tmp_path, data, hierarchies=["PLAY"])
    assert rows == [
        Row("PLAY_ANN", "PLAY", text) for text in ("It begins.", "So it ends!", "New line")
    ]


def test_shakespeare_without_raw_text_is_put_together_again(tmp_path: Path) -> None:
    text = "   Now is the winter of our discontent. Made glorious summer by this sun of York"
    windows = [text[k : k + 10] for k in range(len(text) - 10)]
    data = {"ann": {"x": windows, "y": [text[k + 10] for k in range(len(text) - 10)]}}
    texts = [row.text.strip() for row in read(tmp_path, data)]
    assert texts == [
        "Now is the winter of our discontent.",
        "Made glorious summer by this sun of York",
    ]
    # A gap begins another text.
    data["ann"]["x"].pop(20)
    data["ann"]["y"].pop(20)
    assert len(read(tmp_path, data)) == 3


def test_sent140_takes_the_last_field_and_the_label(tmp_path: Path) -> None:
    row = ["1467", "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "ann", "is upset, still"]
    assert read(tmp_path, {"ann": {"x": [row], "y": [0]}}) == [
        Row("ann", "ann", "is upset, still", label="0")
    ]


def test_numbers_in_place_of_text_are_text(tmp_path: Path) -> None:
    row = ["1467", "Mon Apr 06 22:19:45 PDT 2009", "NO_QUERY", "ann", 42]
    assert read(tmp_path, {"ann": {"x": [row], "y": [4]}}, hierarchies=[7]) == [
        Row("ann", "7", "42", label="4")
    ]


def test_reddit_joins_tokens_and_drops_markers(tmp_path: Path) -> None:
    x = [[["<BOS>", "so", "it", "goes"], ["on", "<EOS>", "<PAD>", "<PAD>"]], "plain text"]
    data = {"ann": {"x": x, "y": [{"target_tokens": []}, {}]}}
    assert [row.text for row in read(tmp_path, data)] == ["so it goes", "on", "plain text"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "is an empty JSON object, not a LEAF file"),
        ('{"users": []}', "is a JSON object with .users., not a LEAF file"),
        ('{"users": ["a", "a"], "user_data": {"a": {"x": []}}}', "not a sound LEAF file"),
        ('{"users": [], "user_data": {"a": {"x": []}}}', "not a sound LEAF file"),
        ('{"users": ["a"], "user_data": {"a": {"x": [3]}}}', r"at user 'a': .*is a int"),
        ('{"users": ["a"], "user_data": {"a": 3}}', "is damaged"),
        ('{"users": [', "is damaged"),
        (
            '{"users": ["a"], "user_data": {"a": {"x": ["hi"]}, "a": {"x": ["ho"]}}}',
            "is damaged.*'a' is there twice",
        ),
    ],
)
def test_files_that_are_not_sound(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "leaf.json"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        list(open_corpus(path).rows())
