"""Files of the user's that hide the packages that are installed beside fedsi."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("clients", "server", "simulations")
"""Names that a script's folder may well have files of."""


def check_not_hidden(root: Path, names: Iterable[str] = PACKAGES) -> None:
    """Refuse to go on if ``import server`` and the like would find something else.

    Args:
        root: The folder that fedsi itself lies in.
        names: Packages that are expected there; one that is not there is not looked for.

    Raises:
        ImportError: A file or folder that comes first on the import path has such a name.
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
    """Return the folder of the package, or the module's file, that an import of a name finds."""
    loaded = sys.modules.get(name)
    spec = loaded.__spec__ if loaded else find_spec(name)
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    place = folders[0] if folders else spec.origin
    return Path(place) if place else None
