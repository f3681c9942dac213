"""Detection of the user's files that hide fedsi's packages from Python's import."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("clients", "server", "simulations")
"""Names that files in a script's folder may well have."""


def check_not_hidden(root: Path, names: Iterable[str] = PACKAGES) -> None:
    """Refuse to continue if ``import server`` and the like would import something else.

    Args:
        root: The folder that contains fedsi.
        names: Packages expected in it; packages that are missing there are skipped.

    Raises:
        ImportError: A file or folder earlier on the import path has such a name.
    """
    for name in names:
        expected = root / name
        found = _place(name)
        if expected.is_dir() and found and found.resolve() != expected.resolve():
            raise ImportError(
                f"{found} hides fedsi's package {name!r} from Python's import; rename it",
                name=name,
                path=str(found),
            )


def _place(name: str) -> Path | None:
    """Return the package folder or module file that an import of a name finds."""
    loaded = sys.modules.get(name)
    spec = loaded.__spec__ if loaded else find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin
    return Path(place) if place else None
