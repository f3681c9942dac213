"""A series: studies that together answer one question, the most important first.

A series is a TOML file that names the files of its studies, relative to its own folder. The folder
of a series holds such a file too, beside the folder of each study.
"""

from pathlib import Path
from typing import Self

import tomli_w
from pydantic import ValidationError

from fedsi.errors import UserError
from fedsi.experiment.explanations import explain
from fedsi.experiment.field_types import Settings
from fedsi.experiment.toml_text import parsed_toml, toml_file
from fedsi.files import make_folder, write_atomically
from simulations.safe_text import typed
from simulations.studies.study import STUDY, Study

SERIES = "series.toml"
"""The series' file in its folder."""


class _File(Settings):
    name: str
    question: str = ""
    studies: tuple[str, ...]


class Series(Settings):
    """Studies in their order of importance."""

    name: str
    question: str = ""
    """What they answer together."""
    studies: tuple[Study, ...]
    """At least one, with different names."""

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a series and its studies.

        Raises:
            UserError: A file is missing or malformed, two studies have one name, or there is none.
        """
        values = parsed_toml(toml_file(path, "series"), str(path))
        try:
            given = _File(**values)
        except ValidationError as error:
            raise UserError(f"{path}: {explain(error, list(_File.model_fields))}") from None
        studies = tuple(Study.from_file(path.parent / name) for name in given.studies)
        names = [study.name for study in studies]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UserError(
                f"{path}: two studies are called {twice}, and would share a folder; give one "
                "another name"
            )
        if not studies:
            raise UserError(f"{path}: the series has no studies; name at least one file")
        return cls(name=given.name, question=given.question, studies=studies)

    def write(self, folder: Path) -> None:
        """Write the series and its studies to a folder, from which it can be continued.

        Raises:
            UserError: The folder holds another series.
        """
        names = [f"{study.name}/{STUDY}" for study in self.studies]
        text = tomli_w.dumps({"name": self.name, "question": self.question, "studies": names})
        path = folder / SERIES
        if path.exists() and path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{folder} holds another series; name another folder with --out, or continue that "
                f"one with: fedsi study {typed(folder)}"
            )
        for study in self.studies:
            own = folder / study.name
            make_folder(own)
            if not (own / STUDY).exists():
                write_atomically(own / STUDY, study.located(Path.cwd()).to_toml().encode())
        write_atomically(path, text.encode())


def is_series(path: Path) -> bool:
    """Whether a TOML file is of a series, not of a study."""
    try:
        return "studies" in parsed_toml(toml_file(path, "study"), str(path))
    except UserError:
        return False
