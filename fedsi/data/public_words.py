"""The public word list: ``data.vocabulary = "public"``.

A vocabulary counted from clients' texts costs privacy that epsilon does not cover; this list is
made from public text alone: docstrings and comments of Python's standard library, and the language
reference that comes with it (``pydoc_data``). Words are ranked by the number of modules that use
them. The list is written by ``python -m fedsi.data.public_words > fedsi/data/public_words.json``;
it depends on the version of Python, which the file names.
"""

import json
import platform
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc_data.topics import topics

from fedsi.data.pydocs import docstring_sentences, docstrings_of
from fedsi.data.words import Splitting, split_words
from fedsi.errors import UserError

PUBLIC_WORDS = Path(__file__).with_name("public_words.json")
SIZE = 10_000
FEWEST_MODULES = 2
"""A word of one module only is rather a name than a word."""

SOURCE = (
    "docstrings, comments and language reference of the standard library of Python {version}, "
    "Copyright Python Software Foundation"
)
LICENCE = "PSF License Agreement, version 2"

_SKIPPED = {"site-packages", "dist-packages", "__pycache__"}
_COMMENT = re.compile(r"\s*#+ (.*)")


def public_words(size: int, splitting: Splitting) -> list[str]:
    """Return the first words of the public list that a splitting rule can produce.

    Raises:
        UserError: The rule makes characters, not words.
    """
    if splitting == "characters":
        raise UserError(
            "data.vocabulary=public lists words, and data.words=characters has none; choose "
            "another data.words, or name a list of characters with data.vocabulary"
        )
    listed = json.loads(PUBLIC_WORDS.read_text(encoding="utf-8"))["words"]
    return [word for word in listed if split_words(word, splitting) == [word]][:size]


def ranked_words(modules: Iterable[Iterable[str]]) -> list[str]:
    """Return the words of some modules' texts, those that most modules use first.

    Ties are broken by the number of uses, then alphabetically.
    """
    users: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    for texts in modules:
        words = Counter(word for text in texts for word in split_words(text, "letters"))
        users.update(words.keys())
        uses.update(words)
    known = [word for word, count in users.items() if count >= FEWEST_MODULES]
    return sorted(known, key=lambda word: (-users[word], -uses[word], word))[:SIZE]


def library_texts(library: Path) -> Iterator[Iterator[str]]:
    """Yield the sentences of each module below a folder: docstrings and comments."""
    for path in sorted(library.rglob("*.py")):
        if not _SKIPPED.intersection(path.relative_to(library).parts):
            yield _sentences(path)


def _sentences(path: Path) -> Iterator[str]:
    for text in (*docstrings_of(path), *_comments(path)):
        yield from docstring_sentences(text)


def _comments(path: Path) -> Iterator[str]:
    """Yield the comments of a file, neighbouring lines as one text."""
    block: list[str] = []
    for line in (*path.read_text(encoding="utf-8", errors="replace").splitlines(), ""):
        if comment := _COMMENT.match(line):
            block.append(comment[1])
        elif block:
            yield "\n".join(block)
            block = []


def _main() -> None:
    library = Path(sysconfig.get_path("stdlib"))
    words = ranked_words((*library_texts(library), *([text] for text in topics.values())))
    content = {
        "source": SOURCE.format(version=platform.python_version()),
        "licence": LICENCE,
        "words": words,
    }
    sys.stdout.write(json.dumps(content, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    _main()
