"""A program that prints what a TFF HDF5 file holds, one JSON object a client.

The HDF5 library can crash its process, or run for ever, on a damaged file; so it has a process of
its own. Its standard output ends with an object that has ``end``, or one that has ``fault``.
Bytes that are not UTF-8 are printed as lone surrogates. It begins with an object that has
``unlimited`` where the system cannot limit a process's memory.

Run as ``python hdf5_process.py FILE FEATURES LABEL``: the features that may hold the text,
separated by commas, and the feature with the label, or an empty string.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

import h5py

PATIENCE_SECONDS = 30
"""Reading one client takes milliseconds; the alarm ends the process."""

MOST_MEMORY = 2 << 30
"""Bytes; a damaged size must not fill the memory."""


def main(path: str, candidates: list[str], label: str) -> None:
    """Print every client of a file."""
    place = "the beginning"
    try:
        _limit_memory()
        signal.alarm(PATIENCE_SECONDS)
        with h5py.File(path, "r") as file:
            if "examples" not in file:
                _print(missing="examples")
                return
            for client, features in _clients(file["examples"], ""):
                place = f"client {client!r}"
                signal.alarm(PATIENCE_SECONDS)
                name = next((name for name in candidates if name in features), None)
                if name is None:
                    _print(client=client, features=sorted(features))
                    return
                labels = _values(features[label]) if label and label in features else None
                _print(client=client, texts=_values(features[name]), labels=labels)
        _print(end=True)
    except Exception as error:  # what h5py raises on damage is anybody's guess
        _print(fault=f"{type(error).__name__}: {error}", place=place)


def _limit_memory() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    except (OSError, ValueError):  # as macOS does
        _print(unlimited=True)


def _clients(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the groups that hold features; a slash in a client's id made groups in groups."""
    for name in group:
        inner = group[name]
        if any(isinstance(inner[feature], h5py.Dataset) for feature in inner):
            yield prefix + name, inner
        else:
            yield from _clients(inner, f"{prefix}{name}/")


def _values(feature: Any) -> list[Any]:
    """Return a feature's examples; a single one if it is no array."""
    value = feature[()]
    examples = value.tolist() if hasattr(value, "tolist") else value
    plain = _decoded(examples)
    return plain if isinstance(plain, list) else [plain]


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _print(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), sys.argv[3])
