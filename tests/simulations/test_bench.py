"""The benchmarks at small sizes: what they count, not how long it takes."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedsi.data.corpus import silent
from fedsi.data.formats.table import open_corpus
from simulations.benchmarks.stack_overflow import write_stack_overflow
from simulations.cli.main import main


def result_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["bench", *arguments, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_ingestion_counts_what_it_generated(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--clients", "50", "--sentences", "2000", "--folder", str(tmp_path)]
    result = result_of(capfd, "ingestion", *sizes)
    assert (result["clients"], result["sentences"]) == (50, 2000)
    assert 20_000 < result["words"] < 28_000
    assert result["sentences_per_second"] > 0
    assert 50 < result["peak_memory_mib"] < 1536
    assert result["reached"]
    assert list(tmp_path.iterdir()) == []


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
