"""TOML texts that a person writes: experiments and studies."""

import tomllib
from pathlib import Path
from typing import Any

from fedsi.errors import UserError
from fedsi.experiment.explanations import not_toml
from fedsi.files import read_text

LARGEST_FILE = 2**20
"""Bytes of a TOML file; longer ones are not read."""


def parsed_toml(text: str, source: str) -> dict[str, Any]:
    """Return the values of a TOML text.

    Raises:
        UserError: Malformed TOML; ``source`` is named.
    """
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also for numbers with too many digits for Python
        raise UserError(f"{source} is not valid TOML: {not_toml(error, text)}") from None
    except RecursionError:
        raise UserError(f"{source} nests brackets too deeply; no key of it does") from None


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
