"""The comparison study from the command line to its page."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from simulations.cli.main import main
from tests.simulations.cli.test_report import again

SMALL = ["--preset", "smoke", "--set", "server.rounds=3", "--set", "server.evaluate_every=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Run a comparison in which a learning rate makes both architectures diverge."""
    folder = tmp_path_factory.mktemp("study") / "out"
    rates = ["--client-learning-rates", "1,1e30"]
    code = main(["compare", *SMALL, *rates, "--out", str(folder), "--cache", str(cache)])
    assert code == 0
    return folder


def test_it_leaves_tables_a_figure_and_a_page(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "comparison.csv", "comparison.json", "comparison.md", "comparison.png", "comparison.svg",
        "ngrams.json", "report.html", "runs", "study.toml",
    }  # fmt: skip
    rows = pd.read_csv(finished / "comparison.csv")
    assert len(rows) == 4
    assert set(rows["status"]) == {"finished", "diverged"}
    page = (finished / "report.html").read_text()
    for text in ("CIFG and SI-CIFG on synthetic", "<svg", "diverged", "trigram", "1 seed: another"):
        assert text in page
    assert not re.search(r"(src|href)=.https?://", page)  # complete without a network


def test_its_report_is_written_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["report.html", "comparison.json", "comparison.md", "comparison.csv", "comparison.svg"]
    again(finished, names, monkeypatch)


def test_divergence_is_a_result(finished: Path) -> None:
    result = json.loads((finished / "comparison.json").read_text())
    assert result["reported_on"] == "test"
    assert [place["arm"]["model.architecture"] for place in result["places"]] == ["cifg", "si_cifg"]
    for place in result["places"]:
        tame, wild = place["settings"]
        assert place["chosen"] == tame
        assert tame["values"]["client.learning_rate"] == 1
        assert tame["test"]["loss"] > 0
        assert (wild["diverged"], wild["test"]["loss"]) == (1, None)
    (gap,) = result["gaps"]
    assert gap["verdict"] in {"too few seeds", "not better than the unigram model"}
    assert gap["bootstrap_over_clients"]["0"]["loss"]["low"] is not None


def test_ngram_models_count_the_targets_of_the_runs(finished: Path) -> None:
    result = json.loads((finished / "comparison.json").read_text())
    losses = [result["ngrams"][name]["loss"] for name in ("unigram", "bigram", "trigram")]
    assert losses == sorted(losses, reverse=True)
    # Over all evaluated clients the unigram model's loss is the one that the runs report.
    rows = json.loads((finished / "runs" / "cifg-lr1-seed0" / "heldout.json").read_text())
    columns = dict(zip(rows["columns"], zip(*rows["rows"], strict=True), strict=True))
    test = [i for i, one in enumerate(rows["test"]) if one]
    sums = {name: sum(columns[name][i] for i in test) for name in ("unigram_loss", "tokens")}
    assert losses[0] == pytest.approx(sums["unigram_loss"] / sums["tokens"])
    assert result["target"] < losses[0]


def test_resuming_runs_nothing_again(
    finished: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sorted((finished / "runs").rglob("summary.json"))
    before = [path.stat().st_mtime_ns for path in runs]
    same = ["compare", *SMALL, "--client-learning-rates", "1,1e30", "--out", str(finished)]
    assert main([*same, "--cache", str(cache), "--resume", "--json"]) == 0
    assert [path.stat().st_mtime_ns for path in runs] == before
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((finished / "comparison.json").read_text())
    assert main([*same, "--cache", str(cache)]) == 2
    assert "already holds a comparison" in capsys.readouterr().err
    other = [*same, "--cache", str(cache), "--resume", "--set", "client.batch_size=3"]
    assert main(other) == 2
    assert "another experiment (client.batch_size is " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--architectures", "cifg,gro"], "model.architecture = 'gro'"),
        (["--architectures", ""], "--architectures takes different values"),
        (["--client-learning-rates", "1,fast"], "--client-learning-rates takes numbers"),
        (["--client-learning-rates", "1,1"], "takes different values"),
        (["--client-learning-rates", "-1"], "client.learning_rate = -1.0 is not allowed"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
        (["--set", "data.corpus=none.csv"], "there is no corpus none.csv"),
        (["--set", "server.cohort_size=500"], "more than the 180 training clients"),
        (
            ["--set", "devices.availability=trace", "--set", "devices.trace=none.csv"],
            "cannot read the trace none.csv",
        ),
    ],
)
def test_bad_input(
    arguments: list[str],
    expected: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    code = main(["compare", *SMALL, *arguments, "--out", str(out), "--cache", str(cache)])
    assert code == 2
    assert expected in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_ctrl_c_can_be_resumed(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulations.cli.main", "compare", "--preset", "smoke"]
    command += ["--set", "server.rounds=100000", "--out", str(tmp_path / "o")]
    process = subprocess.Popen([*command, "--cache", str(cache)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("checkpoint.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in err.splitlines()[-1]
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 2
