r"""Words: the rules that split texts, word lists and prompts.

Words are those of Unicode Standard Annex 29 ("Unicode Text Segmentation", word boundaries) with
changes that the annex allows: single hyphens join (well-known, covid-19); full stops, colons and,
if only letters count, underscores do not (end.Next is two words); scripts without spaces are split
into grapheme clusters. An emoji is a word of its own.

Before that, a text is normalised:

* NFC and lower case. The Turkish capital I with a dot becomes a plain i. Otherwise lower case is
  Unicode's: I becomes i in Turkish texts too, and STRASSE and Straße remain different words.
* NFKC for presentation forms, letters that Unicode encodes again for their looks (``_FORMS``), and
  for nothing else, because it changes the meaning of ``x²``, ``½`` or ``№``.
* Typographic apostrophes and hyphens become those of ASCII. Soft hyphens, marks of direction,
  variation selectors and other invisible signs are removed. Zero-width joiners are kept inside
  words, because Persian and the scripts of India spell with them, and inside emoji.
* Emoji are fully qualified (Unicode Technical Standard 51): a heart is one word with or without its
  variation selector.

ASCII texts, which are most of the work, take a faster path to the same words.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal
from unicodedata import normalize, unidata_version

import regex

Splitting = Literal["letters", "punctuation", "spaces", "characters"]

WORD_RULE = f"2, Unicode {unidata_version}, regex {regex.__version__}"
"""Version of the rule and of its tables; part of the cache key of everything made of words."""

SPACE = "\N{OPEN BOX}"
"""Stands for white space if every character is a word."""

_FORMS = re.compile(
    r"[\u0132\u0133\u0149\u01C4-\u01CC\u01F1-\u01F3"  # digraphs
    r"\u2F00-\u2FD5"  # Kangxi radicals
    r"\uFB00-\uFB06\uFB13-\uFB17\uFB1D-\uFB4F"  # ligatures: Latin, Armenian, Hebrew
    r"\uFB50-\uFDFC\uFE80-\uFEFC"  # Arabic letters by their place in a word
    r"\uFF01-\uFF5E\uFF66-\uFFDC"  # full and half width
    r"\U0001D400-\U0001D7FF]+"  # mathematical alphabets
)
_SPELLINGS = {
    r"\xB4\u02B9\u02BB-\u02BD\u05F3\u2018\u2019\u201B\u2032": "'",
    r"\u058A\u05BE\u2010\u2011\uFE63": "-",
    r"\u05F4": '"',  # the Hebrew gershayim
    r"\u200B": " ",  # the zero-width space
    r"\xAD\u061C\u180E\u200E\u200F\u202A-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB": "",
    r"\uFE00-\uFE0F\U000E0100-\U000E01EF": "",  # variation selectors
    r"\uD800-\uDFFF": "\N{REPLACEMENT CHARACTER}",  # lone surrogates
}
_RESPELLED = re.compile("|".join(f"([{signs}])" for signs in _SPELLINGS))
_TO_RESPELL = re.compile(f"[{''.join(_SPELLINGS)}]")
_REPLACEMENTS = tuple(_SPELLINGS.values())
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_DOTS = re.compile("i\N{COMBINING DOT ABOVE}+")
_MAYBE_EMOJI = re.compile(
    r"[\u203C\u2049\u20E3\u2190-\u2BFF\u3030\u303D\u3297\u3299\U0001F000-\U0001FAFF]"
)
"""Quick tests of whether anything must be changed; for most texts nothing must."""


def _compiled(pattern: str, **names: str) -> regex.Pattern[str]:
    """Compile a pattern in which ``<NAME>`` stands for another pattern."""
    for name, meaning in names.items():
        pattern = pattern.replace(f"<{name}>", meaning)
    return regex.compile(pattern, regex.VERSION1 | regex.VERBOSE)


# Text signs that Unicode counts among the emoji; the last one has a lower case.
_PICTURE = r"[[\p{Emoji}&&\p{Extended_Pictographic}]--[©®™ℹⓂ]]"
_UNQUALIFIED = _compiled(
    r"[<PICTURE>--\p{Emoji_Presentation}] (?!\p{Emoji_Modifier}) | [0-9\#*] (?=\u20E3)",
    PICTURE=_PICTURE,
)
_EMOJI = _compiled(
    r"( \p{RI}\p{RI} | [0-9\#*]\uFE0F\u20E3 | <ONE>(?:\u200D<ONE>)*+ | \p{Emoji_Modifier} )",
    ONE=r"(?:<PICTURE>[\uFE0F\p{Emoji_Modifier}]?+(?:[\U000E0020-\U000E007E]++\U000E007F)?+)",
    PICTURE=_PICTURE,
)

_LETTER = r"\p{WB=ALetter}\p{WB=Hebrew_Letter}"
_CLASSES = {
    "LETTER": _LETTER,
    "SIGN": _LETTER + r"\p{Nd}\p{No}",
    "MARK": r"\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}",
    "HEBREW": r"\p{WB=Hebrew_Letter}",
    "KATAKANA": r"\p{WB=Katakana}",
    "OTHER": r"\p{L}\p{Nl}",  # letters of scripts without spaces, where the rest was tried before
    "SPACE": r"\s\x1C-\x1F\x85",
}
_QUOTE = r"""(?<=[<HEBREW>])"(?=[<HEBREW>])"""
_UNSPACED = r"[<KATAKANA>][<KATAKANA><MARK>]*+ | (?=[<OTHER>])\X"
_LETTERS = _compiled(
    rf"[<SIGN>][<SIGN><MARK>]*+ (?:(?:['\-·‧]|{_QUOTE})[<SIGN>][<SIGN><MARK>]*+)*+ | {_UNSPACED}",
    **_CLASSES,
)
_PUNCTUATION = _compiled(
    rf"(?:[<SIGN><MARK>\p{{Pc}}']|{_QUOTE})++ | {_UNSPACED}"
    r" | [^<SIGN><MARK>\p{Pc}'<KATAKANA><OTHER><SPACE>]++",
    **_CLASSES,
)
_HAS_LETTER = _compiled(r"[<LETTER><KATAKANA><OTHER>]", **_CLASSES)
_WITHOUT_SPACES = _compiled(r"[<KATAKANA>[[<OTHER>]--[<LETTER>]]]", **_CLASSES)
_ASCII_LETTERS = re.compile(r"[a-z0-9]++(?:['-][a-z0-9]++)*+")
_ASCII_PUNCTUATION = re.compile(r"[a-z0-9_']++|[^a-z0-9_'\s]++")
_WHITE_SPACE = re.compile(r"\s+")


def split_words(text: str, splitting: Splitting) -> list[str]:
    """Split a text into words.

    Args:
        text: Any text.
        splitting: ``letters`` keeps words that contain a letter, and emoji; ``punctuation`` also
            keeps numbers and runs of punctuation; ``spaces`` splits at white space only, for texts
            that are tokenised already, such as TFF's Stack Overflow; ``characters`` makes a word of
            every grapheme cluster, with ``SPACE`` between words.
    """
    if text.isascii():
        return _ASCII[splitting](text.lower())
    words = _UNICODE[splitting](normalised(text))
    if any(joiner in text for joiner in _JOINERS):
        # At the ends of a word joiners have nothing to join.
        return [inside for word in words if (inside := word.strip(_JOINERS))]
    return words


def share_without_spaces(words: Iterable[str], counts: Iterable[int]) -> float:
    """Return the share of characters that belong to scripts without spaces between words.

    These are Chinese, Japanese, Thai, Lao, Khmer and Burmese.

    Args:
        words: Different words.
        counts: The count of each word.
    """
    such = characters = 0
    for word, count in zip(words, counts, strict=True):
        characters += count * len(word)
        if not word.isascii():
            such += count * len(_WITHOUT_SPACES.findall(word))
    return such / max(characters, 1)


def is_emoji(word: str) -> bool:
    """Whether a word, normalised by ``normalised``, is an emoji."""
    return _EMOJI.fullmatch(word) is not None


def normalised(text: str) -> str:
    """Return a text in the normalised spelling described in the module docstring."""
    text = _FORMS.sub(lambda form: normalize("NFKC", form[0]), normalize("NFC", text))
    if _TO_RESPELL.search(text):
        text = _RESPELLED.sub(_respelled, text)
    text = normalize("NFC", _DOTS.sub("i", text.lower()))
    if _MAYBE_EMOJI.search(text):
        text = _UNQUALIFIED.sub("\\g<0>\N{VARIATION SELECTOR-16}", text)
    return text


def _respelled(sign: re.Match[str]) -> str:
    return _REPLACEMENTS[(sign.lastindex or 0) - 1]


def _ascii_letters(text: str) -> list[str]:
    found = _ASCII_LETTERS.findall(text)
    # Digits and their joiners sort before letters.
    return [word for word in found if word[0] > "9" or max(word) > "9"]


def _letters(text: str) -> list[str]:
    found = _LETTERS.findall(text)
    return [word for word in found if word[0].isalpha() or _HAS_LETTER.search(word)]


def _between_emoji(cut: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Return a function that splits text between emoji."""

    def cut_all(text: str) -> list[str]:
        if not _MAYBE_EMOJI.search(text):
            return cut(text)
        words: list[str] = []
        for place, piece in enumerate(_EMOJI.split(text)):
            words += [piece] if place % 2 else cut(piece)
        return words

    return cut_all


def _with_spaces(cut: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Return a function that splits a text in which white space has become one sign."""
    return lambda text: cut(_WHITE_SPACE.sub(SPACE, text.strip()))


_ASCII: dict[Splitting, Callable[[str], list[str]]] = {
    "letters": _ascii_letters,
    "punctuation": _ASCII_PUNCTUATION.findall,
    "spaces": str.split,
    "characters": _with_spaces(list),
}
_UNICODE: dict[Splitting, Callable[[str], list[str]]] = {
    "letters": _between_emoji(_letters),
    "punctuation": _between_emoji(_PUNCTUATION.findall),
    "spaces": str.split,
    "characters": _with_spaces(_between_emoji(_compiled(r"\X").findall)),
}
