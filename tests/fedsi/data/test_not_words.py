"""Counts by kind of the text that the word rule leaves out."""

from pathlib import Path

import pytest

from fedsi.data.not_words import SAMPLED_TEXTS, Sample
from fedsi.data.shortfall import shortfall
from fedsi.data.words import Splitting, split_words
from tests.fedsi.data.corpora import built, rows_of


def shares(text: str, splitting: Splitting = "letters") -> dict[str, float]:
    sample = Sample()
    sample.add([text])
    return sample.shares(splitting)


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        ("so it begins", {}),
        ("so, it begins!", {"punctuation": 2 / 5}),
        ("so 12 men", {"numbers": 1 / 3}),
        ("mp3 5pm don't 😀 👍🏽", {}),
        ("vor ½ Jahr, ٣ mal", {"numbers": 2 / 6, "punctuation": 1 / 6}),
        ("", {}),
    ],
)
def test_tokens_without_a_word_are_counted_by_kind(text: str, left_out: dict[str, float]) -> None:
    assert shares(text) == pytest.approx(left_out)


@pytest.mark.parametrize("splitting", ["punctuation", "spaces", "characters"])
def test_the_other_rules_leave_nothing_out(splitting: Splitting) -> None:
    assert shares("so, 12 men 😀 :-)", splitting) == {}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("so <br> it", 3),
        ("so <a href='x'>it", 6),
        ("so it&nbsp;begins", 3),
        ("see https://a.de/b?c=1", 11),
        ("1 < 2 and a > b & c", 0),
        ("I <3 you; AT&T", 0),
    ],
)
def test_markup_is_told(text: str, tokens: int) -> None:
    assert shares(text).get("markup", 0) == tokens / len(split_words(text, "punctuation"))


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_the_sample_is_spread_over_all_texts_however_they_come(batch: int) -> None:
    sample = Sample()
    texts = [f"{k}" if k % 4 < 1 else "word" for k in range(10_001)]
    for start in range(0, len(texts), batch):
        sample.add(texts[start : start + batch])
    assert sample._texts == texts[::8]
    assert len(sample._texts) < SAMPLED_TEXTS


def test_much_that_is_left_out_is_said(tmp_path: Path) -> None:
    texts = {f"c{k}": [f"call {k} 44 now!", "see <b>this</b>"] for k in range(9)}
    description = built(tmp_path / "store", rows_of(texts)).description
    assert description.not_words["numbers"] == pytest.approx(2 / 13)
    signs, markup = shortfall(description)[-2:]
    assert signs.startswith("warning: test: 54 % of the text's tokens are left out")
    assert "numbers 15.4 %" in signs
    assert "data.words=punctuation" in signs
    assert "HTML" in markup
    kept = built(tmp_path / "kept", rows_of(texts), words="punctuation").description
    assert set(kept.not_words) == {"markup"}
