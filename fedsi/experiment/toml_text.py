"""TOML texts that a person writes: experiments and studies."""

import re
import tomllib
from pathlib import Path
from typing import Any

from fedsi.errors import UserError
from fedsi.experiment.explanations import not_toml
from fedsi.files import read_text

LARGEST_FILE = 2**20
"""Bytes of a TOML file; longer ones are not read."""
MOST_PARTS = 64
"""Parts of a dotted key, as in ``server.rounds``, from which on a text is refused."""
INTEGER_BITS = 64
_MANY_PARTS = re.compile(rf"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS - 1}}}")


def parsed_toml(text: str, source: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        UserError: Malformed TOML; ``source`` is named.
    """
    if _MANY_PARTS.search(text):  # the parser's time grows with the square of their number
        raise UserError(f"{source} has a key of {MOST_PARTS} parts or more; keys have two")
    try:
        values = tomllib.loads(text)
        _check_integers(values, source)
    except ValueError as error:  # also for numbers with too many digits for Python
        raise UserError(f"{source} is not valid TOML: {not_toml(error, text)}") from None
    except RecursionError:
        raise UserError(f"{source} nests brackets too deeply; no key of it does") from None
    return values


def _check_integers(value: object, source: str) -> None:
    """Refuse integers of more than 64 bits, which no setting has and Python may refuse to print.

    Raises:
        UserError: There is one.
    """
    if isinstance(value, int) and value.bit_length() > INTEGER_BITS:
        raise UserError(f"{source} has an integer of {value.bit_length()} bits; TOML's have 64")
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        _check_integers(part, source)


def toml_file(path: Path, kind: str) -> str:
    """Return the text of a TOML file.

    Args:
        path: The file.
        kind: What it holds, as in "experiment".

    Raises:
        UserError: The file is missing, unreadable or not UTF-8.
    """
    try:
        return read_text(path, LARGEST_FILE)
    except UnicodeDecodeError:
        article = "an" if kind[0] in "aeiou" else "a"
        raise UserError(f"{path} is not UTF-8 text; {article} {kind} is a TOML file") from None
    except OSError as error:
        raise UserError(f"cannot read the {kind} {path}: {error.strerror}") from None
