"""Text of others, where it is shown: words, names and paths that fedsi did not choose."""

import logging
import os
import re
import sysconfig
from pathlib import Path
from typing import Any

# Control characters but tab and line feed; marks that turn the direction of what follows; line and
# paragraph separators; halves of surrogate pairs, which no encoding can write.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LIBRARIES = tuple({f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("purelib", "platlib")})
_OURS = tuple(
    f"{Path(__file__).parents[1] / name}{os.sep}"
    for name in ("clients", "fedsi", "server", "simulations")
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str) -> str:
    r"""Return a text with everything that a terminal obeys written out, as ``\x1b``.

    >>> print(visible("a\x1b[31mred"))
    a\x1b[31mred
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Return ``visible`` text without line breaks: they become ``\n``."""
    return visible(text).replace("\n", "\\n")


def for_figure(text: str) -> str:
    """Return a text as Matplotlib draws it: ``$`` begins no formula, ``_`` hides no label."""
    return (" " if text.startswith("_") else "") + one_line(text).replace("$", r"\$")


def for_markdown(text: str) -> str:
    """Return a text as Markdown shows it: without links, HTML, code and cells of its own."""
    return re.sub(r"[\\`<\[|]", lambda found: "\\" + found[0], one_line(text))


def for_spreadsheet(value: Any) -> Any:
    """Return a table's value so that no spreadsheet takes a text for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


class PlainFormatter(logging.Formatter):
    """Formats a log's lines as ``visible`` text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return visible(super().format(record))


def is_of_a_library(file: str) -> bool:
    """Whether a file of Python belongs to an installed library, and not to fedsi or its user."""
    return file.startswith(_LIBRARIES) and not file.startswith(_OURS)


def log_to_stderr() -> None:
    """Send warnings to standard error, a level before each; of libraries only errors.

    What a library warns of is rarely what the person who runs a command could mend.
    """
    handler = logging.StreamHandler()
    handler.addFilter(lambda r: r.levelno >= logging.ERROR or not is_of_a_library(r.pathname))
    handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
