"""Corpora in every family of scripts: their words, and the warning for scripts without spaces."""

from pathlib import Path
from unicodedata import normalize

import pytest

from fedsi.data.shortfall import shortfall
from tests.fedsi.data.corpora import built, content_of, rows_of

FAMILIES = {
    "Latin": ("zażółć gęślą jaźń, l’été don’t", True),
    "Cyrillic": ("съешь ещё этих мягких булок", True),
    "Greek": ("ξεσκεπάζω την ψυχοφθόρα βδελυγμία", True),
    "Hebrew": ('עטלף אבק נס דרך צה"ל', True),
    "Arabic": ("نص حكيم له سر قاطع", True),
    "Persian": ("می\u200cخواهم کتاب بخوانم", True),
    "Devanagari": ("ऋषियों को सताने वाले दुष्ट", True),
    "Bengali": ("আমি বাংলায় গান গাই", True),
    "Turkish": ("ılık rüzgâr İstanbul ışıldayan", True),
    "Vietnamese, decomposed": (normalize("NFD", "tiếng Việt có dấu"), True),
    "Emoji": ("👩🏽\u200d🚀 🏳️\u200d🌈 👨\u200d👩\u200d👧 ❤️ 🇩🇪", True),
    "Tamil": ("யாமறிந்த மொழிகளிலே தமிழ்மொழி", True),
    "Korean": ("키스의 고유조건은 입술끼리", True),
    "Chinese": ("视野无限广，窗外有蓝天", False),
    "Japanese": ("いろはにほへと ちりぬるを 漢字", False),
    "Thai": ("เป็นมนุษย์สุดประเสริฐเลิศคุณค่า", False),
    "Khmer": ("ខ្ញុំស្រឡាញ់ភាសាខ្មែរ", False),
}
"""A sentence of each family of scripts, and whether its words can be separated."""


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_told_apart_or_it_is_said_that_they_cannot(tmp_path: Path, family: str) -> None:
    text, spaced = FAMILIES[family]
    rows = rows_of({f"c{k}": [f"{text} 👍🏽"] for k in range(6)})
    description = built(tmp_path / "store", rows).description
    said = [sentence for sentence in shortfall(description) if "without spaces" in sentence]
    assert len(said) == (0 if spaced else 1)
    (sentence,) = content_of(tmp_path / "store").training["c1"]
    assert sentence.endswith(" 👍🏽") or not spaced
    if spaced:
        composed = normalize("NFC", text.replace("İ", "i").lower())
        pieces = composed.replace("’", "'").replace(",", "").split()
        assert sentence.split() == [*pieces, "👍🏽"][:8]
    else:
        characters = built(tmp_path / "c", rows, words="characters", sequence_length=60)
        assert not any("without spaces" in s for s in shortfall(characters.description))
        (whole,) = content_of(tmp_path / "c").training["c1"]
        assert whole.replace(",", "，") == f"{text} 👍🏽"
