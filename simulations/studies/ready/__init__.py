"""Studies included with fedsi, one TOML file each, and series of studies, a folder each."""

import difflib
from importlib import resources
from pathlib import Path

from fedsi.errors import UserError
from simulations.studies.series import SERIES, Series
from simulations.studies.study import Study

_HERE = Path(__file__).parent


def ready_names() -> list[str]:
    """Return the names of all ready studies."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def ready_study(name: str) -> Study:
    """Return a ready study.

    Raises:
        UserError: There is no study with this name.
    """
    names = ready_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"there is no study {name!r}; ready ones are {', '.join(names)}{hint}")
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return Study.from_toml(text, f"the study {name}", Path())


def ready_series_names() -> list[str]:
    """Return the names of all ready series."""
    return sorted(file.parent.name for file in _HERE.glob(f"*/{SERIES}"))


def ready_series(name: str) -> Series:
    """Return a ready series; the corpora that it names are looked for in the working folder."""
    return Series.from_file(_HERE / name / SERIES)
