"""Words in every language: the fast path for ASCII, and the boundaries of the Unicode standard."""

import sys
from typing import get_args
from unicodedata import normalize

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from fedsi.data import words as module
from fedsi.data.words import SPACE, Splitting, normalised, share_without_spaces, split_words

SPLITTINGS: tuple[Splitting, ...] = get_args(Splitting)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
ASCII_TEXT = st.text(st.sampled_from("aZ19'-_. !\t\x1c"), max_size=20) | st.text(
    st.characters(max_codepoint=127), max_size=40
)
TELLING = (
    "aéǅİßςक्ि나가ーカひ漢กำمـשהא\"'’-‐·.:_ 1²ⅣＡﬁ❤😀👍🏽🇩🇪"
    "\u0301\u0307\u200b\u200c\u200d\ufe0f\u20e3"
)
ODD_TEXT = st.text(st.sampled_from(TELLING), max_size=12) | ANY_TEXT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP -- the well-known (Émile's) 42.", "don't stop the well-known émile's"),
        ("'tis 1984! \x00 \n", "tis"),
        ("don’t donʼt don＇t don‘t don´t", "don't " * 5),
        ("well‐known well‑known well­known", "well-known well-known wellknown"),
        ("mp3 2nd 5pm gr8 covid-19 30-year-old 12--a", "mp3 2nd 5pm gr8 covid-19 30-year-old a"),
        ("end.Next a:b snake_case 3.5", "end next a b snake case"),
        ("cafe\u0301 café CAFÉ", "café café café"),
        ("İstanbul I\u0307stanbul Straße STRASSE ΟΔΟΣ", "istanbul istanbul straße strasse οδος"),
        ("ﬁne Ｈｅｌｌｏ 𝓱𝓮𝓵𝓵𝓸 ｶﾞ", "fine hello hello ガ"),
        ("x² ½ № H₂O", "x² h₂o"),
        ("col·lecció l’été", "col·lecció l'été"),
        ("a\u200bb a\u2060b \u200ea\u200f a\ufe0fb\ufeff", "a b ab a ab"),
    ],
)  # fmt: skip
def test_latin_words(text: str, expected: str) -> None:
    assert split_words(text, "letters") == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("नमस्ते दुनिया। क़लम", "नमस्ते दुनिया क\u093cलम"),  # Hindi: marks belong to their letters
        ("আমি বাংলায় গান", "আমি বাংলা\u09af\u09bc গান"),
        ("مرحبا، بالعالم ﻣﺮﺣﺒﺎ", "مرحبا بالعالم مرحبا"),
        ("می\u200cخواهم می\u200c رفت", "می\u200cخواهم می رفت"),  # Persian spells with a non-joiner
        ('צה"ל צה״ל ג׳ירפה בית־ספר', 'צה"ל צה"ל ג\'ירפה בית-ספר'),
        ("你好，世界。", "你 好 世 界"),
        ("漢字とカタカナ ラーメン", "漢 字 と カタカナ ラーメン"),
        ("안녕하세요 세계", "안녕하세요 세계"),
        (normalize("NFD", "안녕"), "안녕"),
        ("กำลังเดิน", "กำ ลั ง เ ดิ น"),
        ("Привет, мир!", "привет мир"),
    ],
)
def test_words_of_other_scripts(text: str, expected: str) -> None:
    assert split_words(text, "letters") == expected.split()


@pytest.mark.parametrize("splitting", ["letters", "punctuation", "characters"])
@pytest.mark.parametrize(
    "emoji",
    ["😂", "❤️", "👍🏽", "✌🏽", "👨‍👩‍👧‍👦", "❤️‍🔥", "🏳️‍🌈", "🇩🇪", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "‼️"],
)
def test_an_emoji_is_a_word(emoji: str, splitting: Splitting) -> None:
    # For every spelling and every neighbouring character.
    for typed in (emoji, emoji.replace("\ufe0f", "")):
        assert split_words(f"{typed}{typed}", splitting) == [emoji, emoji]
        assert split_words(f"é{typed}z", splitting) == ["é", emoji, "z"]


def test_signs_of_text_are_no_emoji() -> None:
    text = "© ®\ufe0f ™ ℹ ← №"
    assert split_words(text, "letters") == ["ℹ"]
    assert split_words(text, "punctuation") == ["©", "®", "™", "ℹ", "←", "№"]


def test_every_emoji_is_found_by_the_quick_test_and_has_no_lower_case() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    found = regex.findall(r"(?V1)\p{RI}|\p{Emoji_Modifier}|\u20e3|" + module._PICTURE, everything)
    assert len(found) > 1300
    missed = [sign for sign in found if not module._MAYBE_EMOJI.match(sign)]
    assert missed == []
    assert [sign for sign in found if sign.lower() != sign] == []


def test_numbers_and_punctuation_are_words_where_they_are_asked_for() -> None:
    text = "At 5, 3.5 x_y --“don’t”!? 你好，"
    assert split_words(text, "letters") == ["at", "x", "y", "don't", "你", "好"]
    assert split_words(text, "punctuation") == [
        "at", "5", ",", "3", ".", "5", "x_y", "--“", "don't", "”!?", "你", "好", ",",
    ]  # fmt: skip
    assert split_words("At 5, ‘ok’", "spaces") == ["at", "5,", "'ok'"]
    assert split_words(" At\r\n 5 नि ", "characters") == ["a", "t", SPACE, "5", SPACE, "नि"]


@given(ASCII_TEXT, st.sampled_from(SPLITTINGS))
@example("12-3--a 'b' -c- 4'd \x1c\x85"[:-1], "letters")
def test_ascii_takes_a_shorter_way_to_the_same_words(text: str, splitting: Splitting) -> None:
    assert split_words(text, splitting) == module._UNICODE[splitting](normalised(text))


TAILORED = st.characters(exclude_characters=".:_-·‧", exclude_categories=("N", "Pc", "Cs", "Cn"))


@given(st.text(TAILORED | st.sampled_from("aé'ب\u0301क् "), max_size=30))
def test_words_are_those_of_unicode_where_nothing_is_changed(text: str) -> None:
    text = normalised(text)
    segments = regex.split(r"(?V1w)\b", text)
    whole = r"\p{WB=ALetter}\p{WB=Hebrew_Letter}\p{WB=Katakana}"
    expected = [s for s in segments if regex.match(f"[{whole}]", s)]
    assert [w for w in split_words(text, "letters") if regex.match(f"[{whole}]", w)] == expected


@given(ODD_TEXT, st.sampled_from(SPLITTINGS))
def test_a_word_is_cut_into_itself(text: str, splitting: Splitting) -> None:
    for word in split_words(text, splitting):
        assert split_words(word, splitting) == [word]


@given(ODD_TEXT, st.sampled_from(SPLITTINGS))
@example("I\u0323\u0307 İ\u0323", "letters")
def test_words_do_not_depend_on_the_form_of_a_text(text: str, splitting: Splitting) -> None:
    expected = split_words(text, splitting)
    assert split_words(normalize("NFD", text), splitting) == expected
    assert split_words(normalize("NFC", text), splitting) == expected
    assert all(normalize("NFC", word) == word for word in expected)


@given(ODD_TEXT)
def test_nothing_is_lost_but_what_is_said(text: str) -> None:
    kept = "".join(split_words(text, "punctuation"))
    joiners = str.maketrans("", "", "\u200c\u200d")
    assert kept.translate(joiners) == "".join(normalised(text).split()).translate(joiners)


@pytest.mark.parametrize(
    "unit", ["1", "1-", "'", "a-", "😀\u200d", "\u200d", "\u20e3", "🇩", "_", "\u0301", "ก"]
)
def test_long_texts_take_no_quadratic_time(unit: str) -> None:
    for splitting in SPLITTINGS:
        split_words(unit * 200_000, splitting)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("so it begins", 0.0),
        ("привет नमस्ते 안녕", 0.0),
        ("你好世界", 1.0),
        ("ラーメン と", 1.0),
        ("กำลัง", 0.8),
        ("ab 你好", 0.5),
    ],
)
def test_scripts_without_spaces_are_told(text: str, share: float) -> None:
    words = split_words(text, "letters")
    assert share_without_spaces(words, [3] * len(words)) == share
