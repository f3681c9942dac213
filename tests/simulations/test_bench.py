"""The benchmarks at small sizes: what they count, not how long it takes."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedsi.data.corpus import silent
from fedsi.data.formats.table import open_corpus
from simulations.benchmarks.peers import measure
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


FAKE_PEER = """
import json, shutil, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
for _ in sys.stdin:
    print(json.dumps({"seconds": 5.0}), flush=True)
weights = np.load(folder / "fedsi.npy")
np.save(folder / "pfl.npy", weights + %s)
"""


@pytest.mark.parametrize(
    ("peer", "code", "expected"),
    [
        (FAKE_PEER % "0", 0, ""),
        (FAKE_PEER % "1", 1, "the two disagree by"),
        ("print('no')", 1, "pfl did not say how long a round took"),
    ],
)
def test_peers_are_timed_and_their_weights_compared(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    peer: str,
    code: int,
    expected: str,
) -> None:
    script = tmp_path / "peer.py"
    script.write_text(peer)
    monkeypatch.setitem(measure.SCRIPTS, "pfl", script)
    options = ["--pfl-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "3"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out"), "--json"]
    assert main(["bench", "peers", *options, *counts, *places]) == code
    captured = capsys.readouterr()
    assert expected in captured.err
    if code:
        assert not (tmp_path / "out").exists()
        return
    (measured,) = json.loads(captured.out)
    assert measured["ratio"] > 1
    assert measured["peer_clients_per_second"] == pytest.approx(2 / 5)
    assert measured["difference"] == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"peers.csv", "peers.md", "peers.png", "peers.svg"}


def test_a_peer_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "--pfl-python", "none/python"]) == 2
    assert "pip install 'pfl[pytorch]" in capsys.readouterr().err
    known = ["--pfl-python", sys.executable, "--sizes", "9M"]
    assert main(["bench", "peers", *known]) == 2
    assert "there is no size 9M" in capsys.readouterr().err
