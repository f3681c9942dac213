"""Values of an experiment that are paths."""

import os
from contextlib import suppress
from pathlib import Path

from fedsi.experiment.data import LEARNED_VOCABULARIES, MADE_HERE, PUBLIC

PATHS = {
    "data.corpus": MADE_HERE,
    "data.vocabulary": (*LEARNED_VOCABULARIES, PUBLIC),
    "devices.trace": ("none",),
    "task.label_file": ("none",),
    "model.init_from": ("none",),
    "algorithm.teacher": ("none",),
    "algorithm.public_corpus": ("none", "pydocs"),
}
"""Keys whose value is a path, unless it is one of these words."""


def is_path(key: str, value: object) -> bool:
    """Whether a key's value is the path of a file or folder."""
    return key in PATHS and value not in PATHS[key]


def absolute(key: str, value: str, folder: Path) -> str:
    """Return a key's value, made absolute if it is the path of an existing file in a folder.

    A leading ``~`` is expanded here, because shells do not expand it after ``KEY=``.
    """
    if not is_path(key, value):
        return value
    if value.startswith("~"):
        with suppress(RuntimeError):  # there is no home folder
            return str(Path(value).expanduser())
    place = folder.absolute() / value
    if Path(value).is_absolute() or not place.exists():
        return value
    # The normalised path is kept if it is the same place, because it remains valid without the
    # folder.
    plain = Path(os.path.normpath(place))
    return str(plain if plain.exists() and plain.samefile(place) else place)
