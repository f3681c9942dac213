"""Trials that begin with the rounds of a shorter run, and those that must not."""

from pathlib import Path

import pytest

from fedsi import Experiment
from server.runs.folder import MEASURED, RunFolder
from simulations import simulate
from simulations.presets import load_preset
from simulations.studies.continuation import begin_with


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory, cache: Path, short: Experiment) -> Path:
    folder = tmp_path_factory.mktemp("shorter") / "run"
    simulate(short, out=folder, cache=cache)
    (folder / MEASURED).write_text("{}")
    return folder


@pytest.fixture(scope="module")
def short() -> Experiment:
    return load_preset("smoke").updated({"server.rounds": 2, "server.cohort_size": 2})


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"server.rounds": 3}, True),
        ({"server.rounds": 3, "client.batch_size": 3}, False),
        ({"server.rounds": 3, "server.schedule": "cosine"}, False),
    ],
)
def test_a_run_begins_with_a_shorter_one_only_if_its_rounds_are_the_same(
    shorter: Path, short: Experiment, tmp_path: Path, changes: dict[str, object], begins: bool
) -> None:
    longer = tmp_path / "longer"
    begin_with(shorter, longer, short.updated(changes))
    assert longer.exists() == begins
    if begins:
        assert repr(RunFolder(longer).records()) == repr(RunFolder(shorter).records())
        assert not (longer / MEASURED).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["longer"] * begins


def test_a_run_that_has_begun_is_kept(shorter: Path, short: Experiment, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("begun")
    begin_with(shorter, tmp_path, short.updated({"server.rounds": 3}))
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.toml"]
