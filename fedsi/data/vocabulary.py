"""Vocabularies: which words, or pieces of words, have an id of their own."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, get_args

from fedsi.data.protocol import FIRST_WORD, OOV, SPECIAL_TOKENS, Splitting, split_words
from fedsi.data.subwords import TOKENIZER_FILE, SubwordVocabulary
from fedsi.errors import UserError

WORDS_FILE = "vocabulary.txt"
VOCABULARY_FILES = (WORDS_FILE, TOKENIZER_FILE)
"""One of them lies beside a population and in a run's folder."""

_SPLITTING_LINE = "# words are split at "


class Vocabulary(Protocol):
    """Token ids and what they stand for; the four special tokens come first."""

    file_name: str
    """The file that holds it, beside a population and in a run's folder."""

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
        """Return what one more id adds to the text of some; a space first begins a new word."""
        ...

    def file_text(self) -> str:
        """Return the content of its file."""
        ...


class WordVocabulary:
    """Whole words.

    Args:
        words: The words in order of their ids, without the special tokens.
        splitting: How a text becomes words.
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
        """Return words, special tokens by their names, joined by spaces."""
        return " ".join(self._names[token] for token in tokens)

    def continuation(self, before: Sequence[int], token: int) -> str:
        """Return the id's word; each is a new one, so that no space need say so."""
        del before
        return self._names[token]

    def file_text(self) -> str:
        """Return how texts are split, then one word a line in order of the ids."""
        return "".join(f"{line}\n" for line in (_SPLITTING_LINE + self.splitting, *self.words))

    @classmethod
    def from_text(cls, text: str) -> "WordVocabulary":
        """Parse what ``file_text`` returned.

        Raises:
            ValueError: The first line is another, or the last was cut.
        """
        header, *words = text.removesuffix("\n").split("\n")
        splitting = header.removeprefix(_SPLITTING_LINE)
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


def load_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of a population or of a run.

    Raises:
        UserError: There is none, or it is damaged.
    """
    try:
        if (folder / TOKENIZER_FILE).exists():
            text = (folder / TOKENIZER_FILE).read_text(encoding="utf-8")
            return SubwordVocabulary.from_text(text)
        words = (folder / WORDS_FILE).read_text(encoding="utf-8", errors="surrogatepass")
        return WordVocabulary.from_text(words)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot read the vocabulary in {folder}: {reason}; put back the file that was written "
            "there, or make the folder anew"
        ) from None


def read_word_list(path: Path, size: int) -> list[str]:
    """Read the first words of a list: a word a line, or a word and its count.

    Args:
        path: For example TFF's ``stackoverflow.word_count``.
        size: How many words to take.

    Raises:
        UserError: The file is missing, not UTF-8, or empty; or names a word twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"the word list {path} is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"cannot read the word list {path}: {error.strerror}") from None
    words: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if len(fields) > 2 or (len(fields) == 2 and not fields[1].isdecimal()):
            raise UserError(
                f"{path}, line {number}: expected a word, or a word and its count, not {line!r}"
            )
        if fields and words.setdefault(fields[0].lower(), number) != number:
            raise UserError(
                f"{path}, line {number}: the word {fields[0]!r} is there twice (line "
                f"{words[fields[0].lower()]}); remove one"
            )
        if len(words) == size:
            break
    if not words:
        raise UserError(f"the word list {path} is empty; expected a word a line")
    return list(words)
