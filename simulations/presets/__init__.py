"""Experiments that come with fedsi, one TOML file each."""

import difflib
from importlib import resources
from typing import TYPE_CHECKING

from fedsi.errors import UserError

if TYPE_CHECKING:
    from fedsi.experiment import Experiment


def preset_names() -> list[str]:
    """Return the names of all presets."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_preset(name: str) -> "Experiment":
    """Return a preset.

    Raises:
        UserError: There is none of that name.
    """
    from fedsi.experiment import Experiment  # noqa: PLC0415 - listing the names need not wait

    names = preset_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"there is no preset {name!r}; presets are {', '.join(names)}{hint}")
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return Experiment.from_toml(text, source=f"the preset {name}")
