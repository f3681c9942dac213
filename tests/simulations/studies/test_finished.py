"""What is read of a study's folder, and what is said of the trials that have no result in it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedsi import UserError
from server.runs.folder import MEASURED
from simulations.reports.findings import findings
from simulations.studies.finished import NOT_EVALUATED, NOT_FINISHED, read_study
from simulations.studies.results import RUNS
from simulations.studies.study import Study, Trial
from tests.simulations.studies.fabricated import ARMS, result, write_run

GRID = Study(axes=[ARMS], compare=["model.architecture"], seeds=3)
HALVING = Study(
    axes=[ARMS, {"key": "client.learning_rate", "values": [0.1, 1.0], "label": "lr"}],
    compare=["model.architecture"], tune=["client.learning_rate"], design="halving",
    first_rounds=10, seeds=2, finalists=1, final_seeds=3, experiment={"server": {"rounds": 30}},
)  # fmt: skip


def halving_trials(stage: int) -> list[Trial]:
    """Return the trials of a stage; rate 1 goes on."""
    asked = HALVING.stages()[stage]
    return [
        HALVING.trial(points, seed, asked.rounds)
        for points in HALVING.combinations()
        for seed in asked.seeds
        if stage == 0 or points[1].value == 1.0
    ]


def write(trials: Sequence[Trial], folder: Path) -> None:
    """Write a run of each trial; the larger rates are the better ones."""
    for trial in trials:
        rate = trial.experiment.client.learning_rate
        write_run(result(trial, 5.0 - rate / 10 + trial.seed / 100), folder)


def test_a_run_that_is_not_yet_evaluated_has_not_diverged(tmp_path: Path) -> None:
    write(GRID.trials(), tmp_path)
    write_run(result(GRID.trials()[0], None), tmp_path)
    (tmp_path / RUNS / "si_cifg-seed2" / MEASURED).unlink()
    shutil.rmtree(tmp_path / RUNS / "si_cifg-seed1")
    found, missing = read_study(GRID, tmp_path)
    assert missing == {
        "si_cifg-seed1": NOT_FINISHED,
        "si_cifg-seed2": f"{NOT_EVALUATED} {tmp_path}",
    }
    assert [one.name for one in found.results if one.diverged] == ["cifg-seed0"]
    text = " ".join(findings(found))
    assert "CIFG has no loss: 1 of 3 runs diverged." in text
    assert "SI-CIFG: held-out loss 4.900." in text
    for run in (tmp_path / RUNS).glob(f"*/{MEASURED}"):
        run.unlink()
    shutil.rmtree(tmp_path / RUNS / "cifg-seed0")
    with pytest.raises(UserError, match="no finished run yet that is evaluated client by client"):
        read_study(GRID, tmp_path)


def test_runs_on_different_texts_are_refused_unless_the_study_varies_them(tmp_path: Path) -> None:
    of_data = Study(axes=[{"key": "data.vocabulary_size", "values": [200, 300]}])
    for study, named in ((GRID, ["cifg-seed0", "si_cifg-seed0"]), (of_data, None)):
        folder = tmp_path / study.trials()[0].name
        for number, trial in enumerate(study.trials()[:2]):
            write_run(result(trial, 5.0, corpus_sha256="ab"[number] * 64), folder)
        if named is None:
            assert len(read_study(study, folder)[0].results) == 2
            continue
        with pytest.raises(UserError, match="were trained on different texts") as raised:
            read_study(study, folder)
        assert all(str(folder / RUNS / name) in str(raised.value) for name in named)


def test_models_are_not_ranked_below_the_unigram_model_without_its_counts(tmp_path: Path) -> None:
    """The summaries have its loss, 6."""
    for trial in GRID.trials():
        loss = 6.5 if trial.points[0].value == "cifg" else 6.3
        write_run(result(trial, loss + trial.seed / 100), tmp_path)
    found, _ = read_study(GRID, tmp_path)
    assert found.baselines is None
    assert findings(found)[0].startswith("No ranking of SI-CIFG and CIFG")


@pytest.mark.parametrize(
    ("stages", "gone", "missing"),
    [
        (2, [], set()),
        (2, ["cifg-lr1-seed3"], {"cifg-lr1-seed3"}),
        (2, [f"si_cifg-lr1-seed{seed}" for seed in (2, 3, 4)],
         {f"si_cifg-lr1-seed{seed}" for seed in (2, 3, 4)}),
        (1, ["cifg-lr0.1-seed1-rounds10"], {"cifg-lr0.1-seed1-rounds10"}),
        (1, [], {f"{arm}-lr1-seed{seed}" for arm in ("cifg", "si_cifg") for seed in (2, 3, 4)}),
    ],
)  # fmt: skip
def test_halving_names_the_runs_that_it_still_needs(
    stages: int, gone: list[str], missing: set[str], tmp_path: Path
) -> None:
    trials = [trial for stage in range(stages) for trial in halving_trials(stage)]
    assert set(gone) <= {trial.name for trial in trials}
    write([trial for trial in trials if trial.name not in gone], tmp_path)
    _, found = read_study(HALVING, tmp_path)
    assert found == dict.fromkeys(missing, NOT_FINISHED)
