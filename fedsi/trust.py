"""Trust in files that name code to import, such as a model or an optimizer.

``model.architecture = "module:function"`` runs code. If the user types it, it is the user's choice;
if it is read from an experiment or a run's folder, it is the choice of the file's author.
"""

from collections.abc import Mapping, Sequence
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from fedsi.errors import UserError
from fedsi.model_objects import is_given


def check_trusted(paths: Mapping[str, str], file: Path, allow: str = "--trust") -> None:
    """Refuse code that a file names if the file's author could have placed it there.

    A module is trusted in the working folder, because it is the user's own, and in an installed
    distribution. The check imports nothing. Modules that do not exist pass, because the import
    reports them.

    Args:
        paths: The import path of each key that has one, ``Experiment.import_paths``.
        file: The experiment or the run's folder that names them. A module inside a run's folder
            came with it and is not the user's own.
        allow: The option that allows it, for the message.

    Raises:
        UserError: A module lies elsewhere.
    """
    for key, path in paths.items():
        if is_given(path):  # the object comes from the person's program
            continue
        module = path.partition(":")[0]
        place = find_module(module.split("."))
        if place is None or _is_own(place, file):
            continue
        if module.partition(".")[0] not in packages_distributions():
            raise UserError(
                f"{file} asks for {key} = {path!r}, whose code is {place}, neither in the "
                f"working folder nor installed; read that file, and allow it to run with {allow}"
            )


def find_module(names: Sequence[str]) -> Path | None:
    """Return the file or folder of a module without importing its packages; None if not found."""
    spec = find_spec(names[0])
    for name in names[1:]:
        if spec is None or spec.submodule_search_locations is None:
            return None
        folders = list(spec.submodule_search_locations)
        spec = PathFinder.find_spec(name, folders)
    if spec is None:
        return None
    return Path(spec.origin or next(iter(spec.submodule_search_locations or ["?"])))


def _is_own(place: Path, file: Path) -> bool:
    came_with_it = file.is_dir() and place.resolve().is_relative_to(file.resolve())
    return place.resolve().is_relative_to(Path.cwd()) and not came_with_it
