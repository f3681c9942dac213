"""Tables of a run's rounds and of its held-out clients."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsi import Experiment
from simulations import Result, simulate
from simulations.cli.main import main


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Result]:
    """Return a small run of texts with user names, and its folder."""
    folder = tmp_path_factory.mktemp("tables")
    texts = ["the cat sat on the mat", "a dog ran", "the bird sat", "a cat and a dog ran far"]
    lines = [
        json.dumps({"user": f"{'=' * (user == 3)}user{user}", "text": texts[(user * k) % 4]})
        for user in range(40)
        for k in range(1, 3 + user % 5)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    experiment = Experiment(
        data={"corpus": str(folder / "corpus.jsonl"), "vocabulary_size": 20,
              "heldout_fraction": 0.5},
        model={"embedding_size": 4, "hidden_size": 4},
        server={"rounds": 3, "cohort_size": 4, "evaluate_every": 2, "evaluation_clients": 8},
    )  # fmt: skip
    return folder, simulate(experiment, out=folder / "run", cache=cache)


def test_rounds_are_a_table(ran: tuple[Path, Result], cache: Path) -> None:
    folder, result = ran
    written = pd.read_csv(folder / "run" / "rounds.csv")
    pd.testing.assert_frame_equal(result.rounds, written)
    assert list(result.rounds["round"]) == [0, 1, 2, 3]
    assert list(result.rounds["heldout_loss"].notna()) == [True, False, True, True]
    assert result.rounds["upload_bytes"].sum() == result.summary.upload_bytes
    again = simulate(result.experiment, out=folder / "run", cache=cache, resume=True)
    pd.testing.assert_frame_equal(again.rounds, written)
    alone = simulate(result.experiment.updated({"server.rounds": 1}), cache=cache)
    assert list(alone.rounds["ended"])[1:] == ["server.rounds"]


def test_clients_are_a_table_whose_means_are_in_the_summary(ran: tuple[Path, Result]) -> None:
    clients, summary = ran[1].clients, ran[1].summary
    assert len(clients) == 8
    assert set(clients["part"]) == {"test", "validation"}
    assert clients["client"].str.contains("user").all()
    weighted = np.average(clients["loss"], weights=clients["tokens"])
    assert weighted == pytest.approx(summary.heldout_loss)
    assert clients["loss"].mean() == pytest.approx(summary.heldout["client_loss_mean"])
    accuracy = clients["accuracy_no_oov_no_eos"].mean()
    assert accuracy == pytest.approx(summary.heldout["client_accuracy_mean"])
    assert not any(str(name).startswith("client_") for name in clients)


def test_all_held_out_clients_go_to_a_file(
    ran: tuple[Path, Result], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(ran[0] / "run"), "--cache", str(cache), "--json"]
    tables = []
    for name in ("clients.csv", "more/clients.parquet"):
        file = tmp_path / name
        assert main([*command, "--clients", "all", "--per-client", str(file)]) == 0
        read = pd.read_csv if file.suffix == ".csv" else pd.read_parquet
        tables.append(read(file))
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(tables[0]) == ran[1].summary.heldout_clients > 8
    assert told["heldout_tokens"] == tables[0]["tokens"].sum()
    assert "'=user3" in set(tables[0]["client"]) or "=user3" not in set(tables[1]["client"])
    pd.testing.assert_frame_equal(
        tables[0].drop(columns="client"), tables[1].drop(columns="client"), check_dtype=False
    )
    for wrong in (["--per-client", "clients.xlsx"], ["--clients", "some"]):
        assert main([*command, *wrong]) == 2
    assert "ends in .csv or .parquet" in capsys.readouterr().err


def test_a_run_writes_its_clients(cache: Path, tmp_path: Path) -> None:
    command = ["run", "--preset", "smoke", "--set", "server.rounds=1", "--cache", str(cache)]
    file = tmp_path / "clients.csv"
    assert main([*command, "--out", str(tmp_path / "r"), "--per-client", str(file)]) == 0
    assert len(pd.read_csv(file)) == 20
    bad = [*command, "--out", str(tmp_path / "s"), "--per-client", str(tmp_path / "clients")]
    assert main(bad) == 2
    assert not (tmp_path / "s").exists()


@pytest.mark.usefixtures("fresh_processes")
def test_nothing_imports_pandas_before_a_table_is_asked_for() -> None:
    code = "import sys, simulations.simulation, server.app; sys.exit('pandas' in sys.modules)"
    place = str(Path(__file__).parents[2])
    assert subprocess.run([sys.executable, "-c", code], cwd=place, check=False).returncode == 0
