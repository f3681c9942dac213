"""Benchmarks from the command line at small sizes: their counts, not their times."""

import itertools
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi.data.corpus import silent
from fedsi.data.formats.opening import open_corpus
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from fedsi.models.recurrent import Recurrent
from simulations.benchmarks import (
    device,
    published_sizes,
)
from simulations.benchmarks.stack_overflow import write_stack_overflow
from simulations.cli.main import main


def result_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_ingestion_counts_what_it_generated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    sizes = ["--clients", "50", "--sentences", "2000", "--folder", str(folder)]
    result = result_of(capfd, "ingestion", *sizes)
    assert (result["clients"], result["sentences"]) == (50, 2000)
    assert 20_000 < result["words"] < 28_000
    assert result["sentences_per_second"] > 0
    assert 50 < result["peak_memory_mib"] < 1536
    assert result["reached"]
    assert list(folder.iterdir()) == []


def test_presets_train_what_they_name(
    smoke: Experiment,
    cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(published_sizes, "load_preset", lambda _name: smoke)
    monkeypatch.setattr(published_sizes, "PRESETS", ("smoke",))
    arguments = ["--corpus", smoke.data.corpus, "--cohort", "3", "--out", str(tmp_path)]
    assert main(["bench", "presets", *arguments, "--cache", str(cache), "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)
    description = open_population(prepare(smoke.data, cache)).description
    size = Recurrent(smoke.model, description.vocabulary_size).layout.size
    assert (row["preset"], row["parameters"], row["cohort"]) == ("smoke", size, 3)
    assert row["seconds"] > 0
    assert 50 < row["before_mib"] <= row["peak_mib"]
    assert {"presets.md", "presets.csv", "presets.png"} <= {f.name for f in tmp_path.iterdir()}


def test_population_draws_in_every_way_and_trains(capfd: pytest.CaptureFixture[str]) -> None:
    result = result_of(capfd, "population", "--clients", "500", "--cohort", "5", "--rounds", "1")
    assert set(result["draw_milliseconds"]) == {
        "uniform",
        "poisson",
        "shuffled",
        "diurnal",
        "trace",
    }
    assert result["train_seconds"] > 0
    assert result["reached"].keys() == result["targets"].keys()


def test_impossible_sizes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ingestion", "--clients", "50", "--sentences", "20"]) == 2
    assert "20 sentences are too few for 50 clients" in capsys.readouterr().err
    assert main(["bench", "population", "--clients", "100", "--cohort", "60"]) == 2
    assert "a cohort of 60 is too large" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bench", "ingestion", "--folder", str(tmp_path / "file" / "x")]) == 2
    assert re.fullmatch(r"error: cannot write .*file/x: .*\n", capsys.readouterr().err)


def test_the_generated_file_is_what_tensorflow_federated_writes(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    words = write_stack_overflow(path, 30, 1000, 1, silent)
    again = tmp_path / "t.sqlite"
    write_stack_overflow(again, 30, 1000, 1, silent)
    rows = list(open_corpus(path).rows())
    assert rows == list(open_corpus(again).rows())
    assert len(rows) == 1000
    assert sum(len(row.text.split()) for row in rows) == words
    counted: dict[str, int] = {}
    for row in rows:
        counted[row.client] = counted.get(row.client, 0) + 1
    with closing(sqlite3.connect(path)) as connection:
        stored = connection.execute("SELECT client_id, num_examples FROM client_metadata")
        assert dict(stored.fetchall()) == counted
    assert max(counted.values()) > 5 * min(counted.values())


def test_keystrokes_of_a_run_and_of_a_larger_layer(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    small = ["--preset", "smoke", "--set", "server.rounds=1", "--set", "server.cohort_size=4"]
    assert main(["run", *small, "--out", folder, "--cache", str(cache)]) == 0
    capsys.readouterr()
    command = ["bench", "keystroke", folder, "--cache", str(cache), "--out", folder]
    assert main([*command, "--sizes", "500x40", "--positions", "60", "--parts", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(row["words"], row["size"]) for row in found[7:]} == {(500, 40)}
    assert len(found) == 14
    for row in found:
        assert row["positions"] == 60
        assert row["microseconds"] > 0
        if "exact" in row["layer"] or "certified" in row["layer"]:
            assert row["agreement"] == row["recall"] == 1
    assert (
        "below about 4 MB another one does not pay" in (tmp_path / "run/keystroke.md").read_text()
    )
    assert main([*command, "--sizes", "5x5"]) == 1
    assert "5 x 5 is smaller than the run's output layer" in capsys.readouterr().err
    assert main([*command, "--sizes", "5by5"]) == 2


def test_a_device_is_measured_and_checked(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["--device", "cpu", "--sizes", "0.05M", "--architectures", "cifg", "--lanes", "2"]
    options = [*small, "--cohorts", "2,3", "--cache", str(cache), "--out", str(tmp_path / "out")]
    assert main(["bench", "device", *options, "--json"]) == 0
    rounds = json.loads(capsys.readouterr().out)
    assert [one["cohort"] for one in rounds] == [2, 3]
    assert all(0 < one["difference"] < 1e-4 for one in rounds)
    assert "| 2 at a time, cpu |" in (tmp_path / "out" / "device.md").read_text()
    sums = itertools.count()
    monkeypatch.setattr(device, "_train", lambda *_: (1.0, np.full(3, next(sums), np.int64), 3))
    assert main(["bench", "device", *options]) == 1
    assert "the same round in another order had other bits on cpu" in capsys.readouterr().err


def test_feedforward_parts_of_one_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "feedforward", "--out", str(tmp_path), "--sizes"]
    assert main([*command, "8x400", "--shares", "0.1,0.3", "--json"]) == 0
    dense, few, more, four, sixteen = json.loads(capsys.readouterr().out)
    assert dense["active"] == dense["speed"] == 1
    assert 0.05 < few["active"] < more["active"] < 0.4
    assert few["megabytes"] < more["megabytes"] < dense["megabytes"] == 8 * 400 * 2 * 4 / 1e6
    assert (four["active"], sixteen["active"]) == (1 / 4, 1 / 16)
    assert four["megabytes"] == pytest.approx(4e-6 * (8 * 4 + 8 * 400 * 2 / 4))
    assert max(one["difference"] for one in (dense, few, more, four, sixteen)) < 1e-5
    assert "mixture of experts, 1 of 16" in (tmp_path / "feedforward.md").read_text()
    assert "top k, 0.3 of groups of 16" in (tmp_path / "feedforward.md").read_text()
    assert main([*command, "8x40"]) == 2
    assert "groups of 16 neurons, which do not divide" in capsys.readouterr().err
