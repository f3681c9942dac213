"""The published tables of a study: every run and evaluated round, with the values of its folder."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fedsi.errors import UserError
from server.runs.folder import RunFolder
from simulations.benchmarks.differences import Difference, subtracted
from simulations.benchmarks.study_tables import main, rounds_table, run_row
from simulations.cli.main import main as fedsi
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import result

ARMS = {"CIFG": ("cifg", 1.0), "SI-CIFG": ("si_cifg", 3.0)}
SEEDS = (5, 6)

STUDY = """
compare = ["arm"]
seeds = 2
preset = "smoke"

[experiment]
seed = 5

[experiment.server]
rounds = 2
evaluate_every = 1
learning_rate = 0.01

[[axes]]
name = "arm"
values = ["CIFG", "SI-CIFG"]
changes = [
  { "model.architecture" = "cifg", "client.learning_rate" = 1.0 },
  { "model.architecture" = "si_cifg", "client.learning_rate" = 3.0 },
]
label = ""
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Return the folder of a study of two arms and two seeds."""
    root = tmp_path_factory.mktemp("tables")
    (root / "cells.toml").write_text(STUDY)
    words = ["study", str(root / "cells.toml"), "--out", str(root / "cells"), "--cache", str(cache)]
    assert fedsi(words) == 0
    return root / "cells"


@pytest.fixture(scope="module")
def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of its runs and of its rounds."""
    main([str(folder.parent / "cells"), str(folder)])
    runs, rounds = (folder.parent / f"cells_{name}.csv" for name in ("runs", "rounds"))
    return pd.read_csv(runs), pd.read_csv(rounds)


def run_of(folder: Path, arm: str, seed: int) -> RunFolder:
    return RunFolder(folder / "runs" / f"{arm}-seed{seed}")


def test_each_run_has_a_row_with_its_setting_and_what_its_summary_says(
    folder: Path, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    runs = tables[0].set_index(["arm", "seed"])
    assert [*runs.index] == [(arm, seed) for arm in ARMS for seed in SEEDS]
    for arm, seed in runs.index:
        row, run = runs.loc[(arm, seed)], run_of(folder, arm, seed)
        summary = json.loads((run.path / "summary.json").read_text())
        assert row["client.learning_rate"] == ARMS[arm][1]
        assert (row["server.learning_rate"], row["rounds"]) == (0.01, 2)
        assert (row["rounds_run"], row["ended_by"]) == (2, "server.rounds")
        assert row["heldout_loss"] == pytest.approx(summary["heldout_loss"], rel=1e-5)
        assert row["upload_bytes"] == summary["upload_bytes"]
        assert summary["model_sha256"].startswith(row["model_sha256"])
        assert min(row["validation_loss"], row["test_loss"]) <= row["heldout_loss"]
        assert row["heldout_loss"] <= max(row["validation_loss"], row["test_loss"])


def test_each_evaluated_round_has_a_row_with_a_column_for_each_seed(
    folder: Path, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    rounds = tables[1].set_index(["arm", "round"])
    assert [*rounds.index] == [(arm, number) for arm in ARMS for number in (0, 1, 2)]
    for arm in ARMS:
        for seed in SEEDS:
            for record in run_of(folder, arm, seed).records():
                assert record.heldout
                found = rounds.loc[(arm, record.round), f"seed{seed}"]
                assert found == pytest.approx(record.heldout["loss"], rel=1e-5)


def test_differences_are_those_of_the_study_itself(
    folder: Path, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    study = pd.read_csv(folder / "study.csv").set_index(["arm", "seed"])["all_loss"]
    found = subtracted(
        Difference(
            setting="cells",
            runs="cells_runs.csv",
            loss="heldout_loss",
            first={"arm": "SI-CIFG"},
            second={"arm": "CIFG"},
        ),
        tables[0],
    )
    expected = (study["SI-CIFG"] - study["CIFG"]).mean()
    assert found.interval.estimate == pytest.approx(expected, abs=1e-4)


def test_settings_with_the_same_values_of_other_keys_have_rows_of_their_own() -> None:
    sizes = ["model.embedding_size", "model.hidden_size"]
    results = [
        result(trial, loss)
        for keys, loss in ((sizes, 5.0), (sizes[::-1], 4.0))
        for trial in Study(
            axes=[{"key": key, "values": [v]} for key, v in zip(keys, (64, 128), strict=True)]
        ).trials()
    ]
    rounds = rounds_table(results).set_index(["round", *sizes])["seed0"]
    assert rounds.loc[(2, 64, 128)] == 5.0
    assert rounds.loc[(2, 128, 64)] == 4.0


def test_a_run_that_ended_early_says_so_beside_its_planned_rounds() -> None:
    (trial,) = Study(experiment={"server": {"rounds": 300}}).trials()
    row = run_row(result(trial, 5.0, rounds=3, ended_by="server.budget_seconds"))
    assert (row["rounds"], row["rounds_run"], row["ended_by"]) == (300, 3, "server.budget_seconds")


def test_a_run_that_two_studies_have_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.symlink_to(folder)
    with pytest.raises(UserError, match="both have a run of CIFG-seed5"):
        main([str(tmp_path / "cells"), str(folder), str(other)])
    assert not [*tmp_path.glob("*.csv")]
