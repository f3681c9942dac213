"""How much of a corpus's text is no word by its rule, or a word of its markup, on a sample."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedsi.data.words import Splitting, is_emoji, split_words

SAMPLED_TEXTS = 2_000
"""Texts that are looked at, at most."""

_LONGEST = 10_000
"""Characters of a text that are looked at."""

_MARKUP = re.compile(
    r"<[/!]?[a-z-][^<>]*> | &(?:[a-z]{2,8}|\#\d{1,6}|\#x[0-9a-f]{1,5});"
    r"| \b[a-z][a-z0-9+.-]{1,10}://[^\s<>\"]+ | \bwww\.[^\s<>\"]+",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass
class Sample:
    """Some of the texts of a corpus, at equal distances however many come."""

    _texts: list[str] = field(default_factory=list)
    _distance: int = 1
    _skip: int = 0
    """How many of the next texts are not taken."""

    def add(self, texts: Sequence[str]) -> None:
        """Look at further texts."""
        while self._skip < len(texts):
            self._texts.append(texts[self._skip][:_LONGEST])
            self._skip += self._distance
            if len(self._texts) == SAMPLED_TEXTS:
                # An even number was taken, so the next at twice the distance is the next here.
                del self._texts[1::2]
                self._distance *= 2
        self._skip -= len(texts)

    def shares(self, splitting: Splitting) -> dict[str, float]:
        """Return what part of the text is left out or markup, by kind; none of absent kinds.

        Tokens are counted as the rule ``punctuation`` cuts them. ``numbers``, ``punctuation`` and
        ``emoji`` are the ones of which the rule makes no word. Tags, character references and
        addresses of HTML are ``markup``: their letters do become words.

        Args:
            splitting: The rule.
        """
        found: Counter[str] = Counter()
        markup = 0
        for text in self._texts:
            marks = [token for mark in _MARKUP.findall(text) for token in _tokens(mark)]
            markup += len(marks)
            found.update(_tokens(text))
        kinds = Counter({"markup": markup})
        for token, count in found.items():
            if not split_words(token, splitting):
                kinds[_kind(token)] += count
        total = found.total()
        return {kind: count / total for kind, count in kinds.items() if count}


def _tokens(text: str) -> list[str]:
    return split_words(text, "punctuation")


def _kind(token: str) -> str:
    if is_emoji(token):
        return "emoji"
    return "numbers" if any(sign.isnumeric() for sign in token) else "punctuation"
