"""Suggestions of a trained model while a text is typed letter by letter."""

import re
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from fedsi.data.protocol import FIRST_WORD
from fedsi.errors import UserError
from fedsi.inference.reading import TrainedModel
from fedsi.inference.top_k.layer import Array, Choice
from fedsi.inference.top_k.suggestions import Typed, build_layer, start_typing, type_on

SUGGESTIONS = 3
_BEGUN = re.compile(r"[^\W_]['\w-]*$")
"""The word that is being typed, at the end of a text."""
_BEFORE_WORDS = " \u2581\u0120"
"""What marks the beginning of a word in the names of sub-words."""


@dataclass(frozen=True)
class Answer:
    """What a keyboard shows."""

    words: Sequence[str]
    """Likeliest first; at most ``SUGGESTIONS``."""
    milliseconds: float
    """Time of the model's steps and its output layer."""


class Typist:
    """A model and an output layer, with the text that was last read.

    Args:
        name: Its name on the page.
        trained: The model.
        layer: Name of an output layer.

    Raises:
        UserError: The layer does not fit the model.
    """

    def __init__(self, name: str, trained: TrainedModel, layer: str) -> None:
        if trained.model.settings.is_imported:
            raise UserError(
                f"{trained.model.settings.architecture} reads each text from its beginning, which "
                "is too slow for a keyboard; name a run of one of fedsi's own architectures"
            )
        self.name = name
        self._trained = trained
        self._layer = build_layer(trained, layer, Choice(SUGGESTIONS))
        self._start = self._last = start_typing(trained)
        self._words = [word.lstrip(_BEFORE_WORDS) for word in trained.vocabulary.names()]
        words = range(FIRST_WORD, len(self._words))
        self._order = sorted(words, key=self._lower)
        self._completes = any(len(self._words[token]) > 1 for token in words)

    def answer(self, text: str) -> Answer:
        """Return the suggestions after a text; a word that was begun is completed."""
        begun = _BEGUN.search(text) if self._completes else None
        start = begun[0].lower() if begun else ""
        tokens = self._trained.vocabulary.encode(text[: begun.start()] if begun else text)
        began = time.perf_counter()
        best = self._layer.best(self._read(tokens).state, SUGGESTIONS)
        ids = best.ids.tolist()
        if start:
            ids = self._completions(start, best.of_all)
        taken = 1000 * (time.perf_counter() - began)
        return Answer([self._words[token] for token in ids], taken)

    def _read(self, tokens: list[int]) -> Typed:
        """Return the reading of some words; those read last time are not read again."""
        longest = self._trained.model.longest
        tokens = tokens[-longest + 1 :] if longest else tokens
        before = self._last.tokens[1:]
        if tuple(tokens[: len(before)]) != before:
            self._last, before = self._start, ()
        if len(tokens) > len(before):
            self._last = type_on(self._trained, self._last, tokens[len(before) :])
        return self._last

    def _completions(self, start: str, scores: Array) -> list[int]:
        """Return the likeliest words that begin with some letters and go on."""
        first = bisect_right(self._order, start, key=self._lower)
        found = takewhile(
            lambda k: self._lower(self._order[k]).startswith(start), range(first, len(self._order))
        )
        return sorted((self._order[k] for k in found), key=lambda token: -scores[token])[
            :SUGGESTIONS
        ]

    def _lower(self, token: int) -> str:
        return self._words[token].lower()
