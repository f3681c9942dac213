"""Start of a fedsi module in a new process, independent of files in the working folder.

Run as ``python -P .../launch.py MODULE ARGUMENT...``. ``python -m MODULE`` would put the working
folder first on the import path, where a user's ``server.py`` or ``random.py`` hides fedsi's
packages or the standard library. Here the working folder comes last, and fedsi's own four packages
are found beside this file before any search, also when they are installed as editable.
"""

import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

PACKAGES = ("fedsi", "clients", "server", "simulations")
_ROOT = str(Path(__file__).parents[2])


class _OwnPackages(MetaPathFinder):
    """Finds fedsi's packages beside this file."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  # None for the packages themselves
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [_ROOT], target) if fullname in PACKAGES else None


def main() -> None:
    """Run the module that the command line names, with the rest as its arguments."""
    del sys.argv[0]
    sys.meta_path.insert(0, _OwnPackages())
    sys.path.append(str(Path.cwd()))  # a user's model may be there
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
