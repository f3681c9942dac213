"""What a study's folder may be continued with, and the runs that then count."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from fedsi import Experiment, UserError
from simulations.studies import run
from simulations.studies.results import TrialResult
from simulations.studies.run import StudyRun
from simulations.studies.study import STUDY, Study, Trial
from tests.simulations.studies.fabricated import result

if TYPE_CHECKING:
    from fedsi.data.population import Population

RATE = "server.learning_rate"
RATES = {"key": RATE, "values": [0.1, 0.2]}
RANGE = {"key": RATE, "low": 0.01, "high": 1.0}
GRID = Study(axes=[RATES], tune=[RATE], seeds=2)
RANDOM = Study(axes=[RANGE], tune=[RATE], design="random", draws=3)
HALVING = Study(
    axes=[RATES], tune=[RATE], design="halving", first_rounds=5, factor=2, final_seeds=2,
    experiment={"server": {"rounds": 20}},
)  # fmt: skip


def run_of(study: Study, folder: Path) -> StudyRun:
    """Return a study's run on clients that do not exist."""
    description = SimpleNamespace(vocabulary_size=50, training_clients=90, heldout_clients=20)
    population = cast("Population", SimpleNamespace(description=description))
    return StudyRun(study, folder, population, folder / "cache")


def check(study: Study, before: Study, folder: Path) -> None:
    """Check that a study can be run in the folder of one before."""
    (folder / STUDY).write_text(before.to_toml())
    run_of(study, folder).check()


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        (GRID, {}),
        (GRID, {"axes": [{"key": RATE, "values": [0.3, 0.2, 0.1]}], "seeds": 3}),
        (RANDOM, {"draws": 5}),
        (HALVING, {"axes": [{"key": RATE, "values": [0.1, 0.2, 0.3]}], "final_seeds": 3}),
        (HALVING, {"finalists": 1}),
    ],
)
def test_more_values_draws_and_seeds_go_on(
    before: Study, changes: dict[str, Any], tmp_path: Path
) -> None:
    check(before.updated(**changes), before, tmp_path)


@pytest.mark.parametrize(
    ("before", "changes", "missing"),
    [
        (GRID, {"axes": [{"key": RATE, "values": [0.2, 0.3]}]}, f"{RATE} = 0.1"),
        (GRID, {"seeds": 1}, "the seed 1"),
        (GRID, {"axes": [{**RATES, "label": "lr"}]}, "the trial learning_rate0.1-seed0"),
        (RANDOM, {"draws": 2}, f"{RATE} = "),
        (RANDOM, {"axes": [{**RANGE, "low": 0.02}]}, f"{RATE} = "),
        (HALVING, {"axes": [{"key": RATE, "values": [0.2, 0.3]}]}, f"{RATE} = 0.1"),
        (HALVING, {"first_rounds": 10}, "the trial learning_rate0.1-seed0-rounds5"),
        (HALVING, {"seeds": 2}, "the trial learning_rate0.1-seed1"),
    ],
)
def test_a_study_that_lacks_runs_of_the_folder_is_refused(
    before: Study, changes: dict[str, Any], missing: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        check(before.updated(**changes), before, tmp_path)
    assert f"{tmp_path} holds a study with {missing}" in str(raised.value)
    assert "keep it, or name another folder with --out" in str(raised.value)
    assert (tmp_path / STUDY).read_text() == before.to_toml()


def test_runs_of_a_setting_that_no_longer_goes_on_still_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one more value, which is the best, the finalist of before does not go on."""
    losses = {0.1: 5.0, 0.2: 5.2, 0.3: 4.9}
    finished = {f"learning_rate0.1-{one}" for one in ("seed0-rounds10", "seed1", "seed2")}

    def run_trials(trials: Mapping[str, Experiment], *_: object, **__: object) -> dict[str, str]:
        finished.update(trials)
        return {}

    def read_results(trials: Sequence[Trial], _: Path) -> list[TrialResult]:
        values = [(one, float(one.points[0].value)) for one in trials if one.name in finished]
        return [result(one, losses[value]) for one, value in values]

    monkeypatch.setattr(run, "run_trials", run_trials)
    monkeypatch.setattr(run, "read_results", read_results)
    monkeypatch.setattr(run, "baselines_of", lambda *_: None)
    monkeypatch.setattr(run, "begin_with", lambda *_: None)
    more = HALVING.updated(axes=[{"key": RATE, "values": [*losses]}], finalists=1)
    found = run_of(more, tmp_path).run()
    names = [(trial.points[0].value, trial.rounds, trial.seed) for trial in found._runs()]
    assert sorted(names, key=str) == [
        (0.1, 10, 0), (0.1, 5, 0), (0.1, None, 1), (0.1, None, 2), (0.2, 5, 0),
        (0.3, 10, 0), (0.3, 5, 0), (0.3, None, 1), (0.3, None, 2),
    ]  # fmt: skip
