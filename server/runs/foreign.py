"""Runs that other code wrote: files that are whole and cannot be read.

A file whose checksum holds is as its run wrote it. So if it cannot be read, other code wrote it.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import fedsi
from fedsi.errors import UserError
from fedsi.experiment import Experiment

ADVICE = "read it with that code, or start again with --overwrite"


def written_by(version: object) -> str:
    """Return which code wrote something that this code cannot read.

    Args:
        version: The version of fedsi that it names; anything but a text if it names none.
    """
    if not isinstance(version, str):
        return f"another version of fedsi than this {fedsi.__version__}"
    if version == fedsi.__version__:
        return f"other code of the same version, fedsi {version}"
    return f"fedsi {version}, and this is {fedsi.__version__}"


def foreign_file(path: Path, why: str, summary: Path) -> UserError:
    """Return the error for a whole file of a run that cannot be read.

    Args:
        path: The file.
        why: What is unknown or missing, as in "it has no column loss".
        summary: The run's summary, which names the version that wrote it, if it is finished.
    """
    return UserError(f"{path} was written by {written_by(_version(summary))}: {why}; {ADVICE}")


def unknown_keys(toml: str) -> list[str]:
    """Return the dotted keys of an experiment that this code does not know."""
    known = {*Experiment().flat(), *Experiment.model_fields}
    sections = {key.partition(".")[0] for key in known}
    found = []
    for name, value in tomllib.loads(toml).items():
        if name in sections and isinstance(value, Mapping):
            found += [f"{name}.{key}" for key in value if f"{name}.{key}" not in known]
        elif name not in known:
            found.append(name)
    return found


def _version(summary: Path) -> object:
    try:
        return json.loads(summary.read_bytes())["versions"]["fedsi"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
