"""The bundle of a deployed run: the code that SuperNodes may start for its messages."""

from importlib.util import find_spec
from pathlib import Path

import tomli_w

import fedsi

PACKAGES = ("fedsi", "clients", "server")
"""The packages in a bundle."""

PUBLISHER, NAME = "fedsi", "fedsi"


def app_files() -> dict[str, bytes]:
    """Return the files of a Flower app by path: the packages' code, and their description."""
    files = {"pyproject.toml": tomli_w.dumps(_description()).encode()}
    for package in PACKAGES:
        spec = find_spec(package)
        root = Path((spec.origin if spec else None) or package).parent
        for path in sorted(root.rglob("*.py")):
            name = Path(package, path.relative_to(root)).as_posix()
            files[name] = path.read_bytes()
    return files


def _description() -> dict[str, object]:
    return {
        "project": {
            "name": NAME,
            "version": fedsi.__version__,
            "description": "Federated learning of small on-device language models.",
            "license": "Apache-2.0",
            "dependencies": [],
        },
        "tool": {
            "flwr": {
                "app": {
                    "publisher": PUBLISHER,
                    "fab-include": [f"{package}/**/*.py" for package in PACKAGES],
                    "components": {"serverapp": "server.app:app", "clientapp": "clients.app:app"},
                    "config": {},
                }
            }
        },
    }
