"""Vocabularies: the words or sub-words that have an id."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, get_args

from fedsi.data.labels import LabelSet, text_tokens
from fedsi.data.protocol import FIRST_WORD, OOV, SPECIAL_TOKENS, Tokens
from fedsi.data.subwords import TOKENIZER_FILE, SubwordVocabulary
from fedsi.data.words import SPACE, Splitting, split_words
from fedsi.errors import UserError
from fedsi.files import read_text

WORDS_FILE, LABELS_FILE = "vocabulary.txt", "labelled_vocabulary.json"
VOCABULARY_FILES = (WORDS_FILE, TOKENIZER_FILE, LABELS_FILE)
"""One of these files is in a population's folder and in a run's folder."""

SPLITTING_LINE = "# words are split at "
"""Start of the file of a word vocabulary, followed by a value of ``data.words``."""


class Vocabulary(Protocol):
    """Token ids and their texts; the four special tokens come first."""

    file_name: str
    """Name of its file in a population's folder and in a run's folder."""

    def __len__(self) -> int:
        """Return the number of token ids, special tokens included."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; unknown words become ``OOV``."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of some ids."""
        ...

    def continuation(self, before: Sequence[int], token: int) -> str:
        """Return the text that one more id adds; it starts with a space if it begins a new word."""
        ...

    def names(self) -> Sequence[str]:
        """Return the word or piece of each id, the names of the special tokens first."""
        ...

    def file_text(self) -> str:
        """Return the content of its file."""
        ...


class WordVocabulary:
    """A vocabulary of whole words.

    Args:
        words: The words in order of their ids, without the special tokens.
        splitting: The rule that splits a text into words.
    """

    file_name = WORDS_FILE

    def __init__(self, words: Iterable[str], splitting: Splitting = "letters") -> None:
        self.words = tuple(words)
        self.splitting: Splitting = splitting

    def __len__(self) -> int:
        return len(SPECIAL_TOKENS) + len(self.words)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's words; unknown ones become ``OOV``."""
        return [self._ids.get(word, OOV) for word in split_words(text, self.splitting)]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return words joined by spaces, special tokens by name; characters without spaces."""
        names = [self._names[token] for token in tokens]
        if self.splitting == "characters":
            return "".join(names).replace(SPACE, " ")
        return " ".join(names)

    def continuation(self, before: Sequence[int], token: int) -> str:
        """Return the id's word. Every word is new, so no space marks it."""
        del before
        return self._names[token]

    def names(self) -> Sequence[str]:
        """Return the word of each id, the names of the special tokens first."""
        return self._names

    def file_text(self) -> str:
        """Return the splitting rule, then one word per line in order of the ids."""
        return "".join(f"{line}\n" for line in (SPLITTING_LINE + self.splitting, *self.words))

    @classmethod
    def from_text(cls, text: str) -> "WordVocabulary":
        """Parse the result of ``file_text``.

        Raises:
            ValueError: The first line is wrong, or the last line is incomplete.
        """
        header, *words = text.removesuffix("\n").split("\n")
        splitting = header.removeprefix(SPLITTING_LINE)
        if not text.endswith("\n"):
            raise ValueError("the last line is not whole")
        for known in get_args(Splitting):
            if splitting == known:
                return cls(words, known)
        raise ValueError("the first line does not say how words are split")

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return (*SPECIAL_TOKENS, *self.words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: FIRST_WORD + rank for rank, word in enumerate(self.words)}


@dataclass
class LabelledVocabulary:
    """The vocabulary of a population whose examples have labels, and these labels.

    Args:
        words: The vocabulary of queries and labels; token ids are its ids.
        labels: The labels, which have no token ids.
    """

    words: Vocabulary
    labels: LabelSet
    file_name: str = LABELS_FILE

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self.words.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of some ids."""
        return self.words.decode(tokens)

    def continuation(self, before: Sequence[int], token: int) -> str:
        """Return the text that one more id adds."""
        return self.words.continuation(before, token)

    def names(self) -> Sequence[str]:
        """Return the word or piece of each id, the names of the special tokens first."""
        return self.words.names()

    def file_text(self) -> str:
        """Return the content of its file, JSON with the words' own file in it."""
        labels = list(zip(self.labels.names, self.labels.texts, strict=True))
        content = {"file": self.words.file_name, "words": self.words.file_text(), "labels": labels}
        return json.dumps(content) + "\n"

    @classmethod
    def from_text(cls, text: str) -> "LabelledVocabulary":
        """Parse the result of ``file_text``.

        Raises:
            ValueError: The text is something else.
            UserError: The package tokenizers is needed and not installed.
        """
        try:
            content = json.loads(text)
            words = parse_vocabulary(str(content["file"]), str(content["words"]))
            labels = {str(name): str(one) for name, one in content["labels"]}
        except (KeyError, TypeError, RecursionError):
            raise ValueError("it holds no words and labels") from None
        return cls(words, LabelSet(tuple(labels), tuple(labels.values())))


def label_texts(vocabulary: Vocabulary, sequence_length: int) -> Tokens:
    """Return the texts of a vocabulary's labels as rows, as ``labels.text_tokens`` does.

    Raises:
        TypeError: It has no labels.
    """
    if not isinstance(vocabulary, LabelledVocabulary):
        raise TypeError("the vocabulary has no labels")
    texts = [vocabulary.encode(text) for text in vocabulary.labels.texts]
    return text_tokens(texts, sequence_length)


def parse_vocabulary(file_name: str, text: str) -> Vocabulary:
    """Return the vocabulary that a file of a name in ``VOCABULARY_FILES`` holds.

    Raises:
        ValueError: The text is no vocabulary.
        UserError: The package tokenizers is needed and not installed.
    """
    if file_name == TOKENIZER_FILE:
        return SubwordVocabulary.from_text(text)
    if file_name == LABELS_FILE:
        return LabelledVocabulary.from_text(text)
    return WordVocabulary.from_text(text)


def load_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of a population or of a run.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        there = (name for name in reversed(VOCABULARY_FILES) if (folder / name).exists())
        name = next(there, WORDS_FILE)
        return parse_vocabulary(name, read_text(folder / name))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot read the vocabulary in {folder}: {reason}; restore the original file, or "
            "create the folder again"
        ) from None
