"""Safe display of text that fedsi did not choose: words, names and paths."""

import logging
import os
import re
import shlex
import sysconfig
from pathlib import Path
from typing import Any

# Control characters except tab and line feed; direction marks; line and paragraph separators;
# halves of surrogate pairs, which no encoding can write.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LIBRARIES = tuple({f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("purelib", "platlib")})
_OURS = tuple(
    f"{Path(__file__).parents[1] / name}{os.sep}"
    for name in ("clients", "fedsi", "server", "simulations")
)
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""The beginning of a formula, also after spaces and in full-width characters."""


def visible(text: str) -> str:
    r"""Return a text with everything that a terminal would interpret escaped, as ``\x1b``.

    >>> print(visible("a\x1b[31mred"))
    a\x1b[31mred
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    r"""Return ``visible`` text without line breaks, which become ``\n``."""
    return visible(text).replace("\n", "\\n")


def typed(path: Path) -> str:
    """Return a path as it is typed in a shell: quoted where that is needed, and never an option.

    >>> print(typed(Path("my run")), typed(Path("-run")))
    'my run' ./-run
    """
    text = one_line(str(path))
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def for_figure(text: str) -> str:
    """Return a text escaped for Matplotlib: ``$`` starts no formula, ``_`` hides no label."""
    return (" " if text.startswith("_") else "") + one_line(text).replace("$", r"\$")


def for_markdown(text: str) -> str:
    """Return a text escaped for Markdown: it has no links, HTML, code or cells."""
    return re.sub(r"[\\`<\[|]", lambda found: "\\" + found[0], one_line(text))


def for_spreadsheet(value: Any) -> Any:
    """Return a table's value such that no spreadsheet reads it as a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


class PlainFormatter(logging.Formatter):
    """Formats a log's lines as ``visible`` text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return visible(super().format(record))


def is_of_a_library(file: str) -> bool:
    """Whether a Python file belongs to an installed library rather than fedsi or its user."""
    return file.startswith(_LIBRARIES) and not file.startswith(_OURS)


def log_to_stderr() -> None:
    """Log warnings to standard error with their level; from libraries only errors.

    Users can rarely fix what a library warns about.
    """
    handler = logging.StreamHandler()
    handler.addFilter(lambda r: r.levelno >= logging.ERROR or not is_of_a_library(r.pathname))
    handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler])
