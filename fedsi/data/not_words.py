"""Estimate, from a sample, of the share of a corpus's text that is not words, or is markup."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedsi.data.words import Splitting, is_emoji, split_words

SAMPLED_TEXTS = 2_000
"""Most texts in the sample."""

_LONGEST = 10_000
"""Characters examined per text."""

_MARKUP = re.compile(
    r"<[/!]?[a-z-][^<>]*> | &(?:[a-z]{2,8}|\#\d{1,6}|\#x[0-9a-f]{1,5});"
    r"| \b[a-z][a-z0-9+.-]{1,10}://[^\s<>\"]+ | \bwww\.[^\s<>\"]+",
    re.VERBOSE | re.IGNORECASE,
)


@dataclass
class Sample:
    """A sample of a corpus's texts at equal distances, however many there are."""

    _texts: list[str] = field(default_factory=list)
    _distance: int = 1
    _skip: int = 0
    """Number of following texts to skip."""

    def add(self, texts: Sequence[str]) -> None:
        """Add more texts."""
        while self._skip < len(texts):
            self._texts.append(texts[self._skip][:_LONGEST])
            self._skip += self._distance
            if len(self._texts) == SAMPLED_TEXTS:
                # An even number was taken, so the next text at twice the distance is the next one
                # here.
                del self._texts[1::2]
                self._distance *= 2
        self._skip -= len(texts)

    def shares(self, splitting: Splitting) -> dict[str, float]:
        """Return the shares of tokens that are left out or markup, by kind, without absent kinds.

        Tokens are counted as the rule ``punctuation`` splits them. ``numbers``, ``punctuation`` and
        ``emoji`` are shares of tokens that the rule does not count as words. HTML tags, character
        references and addresses are ``markup``; their letters do become words.

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
