"""Word lists supplied by the user: one word per line, or a word and its count."""

import warnings
from collections.abc import Iterator
from pathlib import Path

from fedsi.data.vocabulary import SPLITTING_LINE
from fedsi.data.words import Splitting, split_words
from fedsi.errors import UserError
from fedsi.files import read_text


def read_word_list(path: Path, size: int, splitting: Splitting) -> list[str]:
    """Read the first words of a list, in normalised spelling.

    The ``vocabulary.txt`` of a run is also a list; its words keep their ids.

    Args:
        path: The list, for example TFF's ``stackoverflow.word_count``.
        size: Number of words to read.
        splitting: The rule that splits the corpus's texts; words of the list that it can never
            produce cause a warning.

    Raises:
        UserError: The file is missing, not UTF-8, or empty; has a word twice; or is the vocabulary
            of a run whose words were split in another way.
    """
    words: dict[str, int] = {}
    impossible: list[str] = []
    for number, listed in _listed(path, splitting):
        cut = split_words(listed, splitting)
        if len(cut) != 1:
            impossible.append(listed)
        word = cut[0] if len(cut) == 1 else listed.lower()
        if words.setdefault(word, number) != number:
            raise UserError(
                f"{path}, line {number}: the word {listed!r} is there twice (line {words[word]}); "
                "remove one"
            )
        if len(words) == size:
            break
    if not words:
        raise UserError(f"the word list {path} is empty; expected one word per line")
    if impossible:
        warnings.warn(
            f"{len(impossible)} of the first {len(words)} words of {path} cannot occur with "
            f"data.words = {splitting!r}, among them {impossible[0]!r}; they take up ids; another "
            "value of data.words, or another list, may fit",
            stacklevel=2,
        )
    return list(words)


def _listed(path: Path, splitting: Splitting) -> Iterator[tuple[int, str]]:
    """Yield the words of a list as written, with their line numbers."""
    for number, line in enumerate(_lines(path), start=1):
        if number == 1 and line.startswith(SPLITTING_LINE):
            _check_splitting(path, line.removeprefix(SPLITTING_LINE).strip(), splitting)
            continue
        fields = line.split()
        if len(fields) > 2 or (len(fields) == 2 and not fields[1].isdecimal()):
            raise UserError(
                f"{path}, line {number}: expected a word, or a word and its count, not {line!r}"
            )
        if fields:
            yield number, fields[0]


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except UnicodeDecodeError:
        raise UserError(f"the word list {path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"cannot read the word list {path}: {error.strerror}") from None


def _check_splitting(path: Path, listed: str, splitting: Splitting) -> None:
    if listed != splitting:
        raise UserError(
            f"{path} is the vocabulary of a run with data.words = {listed!r}, and here it is "
            f"{splitting!r}; use --set data.words={listed}, or remove the first line of the list"
        )
