"""The folder of a run without --out: a new one, and none if nothing ran."""

import os
from pathlib import Path

import pytest

from fedsi import UserError
from simulations.cli import options
from simulations.cli.main import main


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "_claimed", [])


def test_folders_of_one_second_have_different_names() -> None:
    folders = {options.default_folder("run") for _ in range(20)}
    assert len(folders) == 20
    assert all(folder.is_dir() for folder in folders)


def test_another_process_that_was_faster_keeps_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = options.default_folder("run")
    (taken / "rounds.csv").write_text("of another run")
    monkeypatch.setattr(options, "datetime", _frozen(taken))
    assert options.default_folder("run") == taken.with_name(f"{taken.name}-2")
    assert (taken / "rounds.csv").exists()


def test_what_is_refused_leaves_no_folder(cache: Path) -> None:
    arguments = ["--set", "data.population=1", "--preset", "smoke", "--cache", str(cache)]
    assert main(["run", *arguments]) == 2
    assert not Path("results").exists()
    Path("results").mkdir()
    assert main(["compare", *arguments]) == 2
    assert list(Path("results").iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_sentence() -> None:
    Path("results").write_text("")
    with pytest.raises(UserError, match="cannot write results"):
        options.default_folder("run")


def _frozen(folder: Path) -> object:
    class Clock:
        @staticmethod
        def now() -> object:
            return type("Now", (), {"__format__": lambda _self, _form: folder.name[4:]})()

    assert os.sep not in folder.name
    return Clock
