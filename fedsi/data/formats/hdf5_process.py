"""A program that prints the content of a TFF HDF5 file, one JSON object per client.

The HDF5 library can crash or hang on a damaged file, so it runs in a separate process. The output
ends with an object with ``end``, or one with ``fault``. It begins with an object with ``unlimited``
if the system cannot limit a process's memory. Bytes that are not UTF-8 are printed as lone
surrogates.

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
"""Time limit per client, after which an alarm ends the process; reading one takes milliseconds."""

MOST_MEMORY = 2 << 30
"""Memory limit in bytes, so that a damaged size cannot exhaust memory."""


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
    except Exception as error:  # h5py raises arbitrary types on damage
        _print(fault=f"{type(error).__name__}: {error}", place=place)


def _limit_memory() -> None:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    except (OSError, ValueError):  # as macOS does
        _print(unlimited=True)


def _clients(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the groups that hold features; slashes in a client's id create nested groups."""
    for name in group:
        inner = group[name]
        if any(isinstance(inner[feature], h5py.Dataset) for feature in inner):
            yield prefix + name, inner
        else:
            yield from _clients(inner, f"{prefix}{name}/")


def _values(feature: Any) -> list[Any]:
    """Return a feature's examples; a scalar is a single example."""
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
