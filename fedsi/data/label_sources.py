"""Sources of labels in a row of a corpus, ``task.label_source``.

A source returns the query and the names of its right labels, of which there may be none.
"""

from collections.abc import Callable, Sequence

from fedsi.data.corpus import Row
from fedsi.data.pydocs_names import words_of_name
from fedsi.data.words import is_emoji, split_words

Source = Callable[[Row, str | None], tuple[str, Sequence[str]]]


def from_column(row: Row, separator: str | None) -> tuple[str, Sequence[str]]:
    """Return a row's text, and the labels in its label column."""
    names = row.label.split(separator) if separator else [row.label]
    return row.text, [name for name in map(str.strip, names) if name]


def from_words(row: Row, separator: str | None) -> tuple[str, Sequence[str]]:
    """Return a row's text, and each word of the labels in its label column as a label."""
    text, names = from_column(row, separator)
    return text, [word for name in names for word in split_words(words_of_name(name), "letters")]


def from_emoji(row: Row, _separator: str | None) -> tuple[str, Sequence[str]]:
    """Return a row's text without its emoji, and these emoji."""
    words = split_words(row.text, "punctuation")
    emoji = dict.fromkeys(word for word in words if is_emoji(word))
    return " ".join(word for word in words if word not in emoji), list(emoji)


SOURCES: dict[str, Source] = {"column": from_column, "words": from_words, "emoji": from_emoji}
