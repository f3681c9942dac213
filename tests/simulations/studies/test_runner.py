"""Studies in which a trial dies: what is told of the others, and that it is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.cli.main import main
from simulations.reports.comparison import comparison_report
from simulations.reports.tradeoff import tradeoff_report
from simulations.studies import runner
from simulations.studies.compare import Comparison
from simulations.studies.tradeoff import Tradeoff
from tests.simulations.studies.test_compare import SMALL, result
from tests.simulations.studies.test_tradeoff import LEVELS, LOSSES, VALUES
from tests.simulations.studies.test_tradeoff import result as private_result


def dying(monkeypatch: pytest.MonkeyPatch, *dead: str) -> None:
    """Have the processes of some trials killed as soon as they start."""
    start = runner._start

    def started(name: str, *arguments: Any, **options: Any) -> Any:
        running = start(name, *arguments, **options)
        if name in dead:
            running.process.kill()
        return running

    monkeypatch.setattr(runner, "_start", started)


def test_a_study_tells_of_the_trials_that_finished(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", *SMALL, "--client-learning-rates", "1", "--cache", str(cache)]
    command += ["--out", str(out), "--json"]
    with monkeypatch.context() as patch:
        dying(patch, "cifg-lr1-seed0")
        assert main(command) == 1
    printed, said = capsys.readouterr()
    assert "not finished: cifg-lr1-seed0: it ended with code -9" in said
    result = json.loads(printed)
    assert result == json.loads((out / "comparison.json").read_text())
    assert result["not_finished"] == {"cifg-lr1-seed0": "it ended with code -9"}
    assert result["architectures"]["cifg"]["heldout_loss"] is None
    assert result["architectures"]["si_cifg"]["heldout_loss"] > 0
    assert (out / "comparison.png").exists()
    page = (out / "report.html").read_text()
    assert "Not finished, and in none of these numbers: cifg-lr1-seed0" in page
    # It goes on, and then nothing is missing.
    assert main([*command, "--resume"]) == 0
    assert "not_finished" not in json.loads(capsys.readouterr().out)


def test_what_an_older_study_left_is_not_taken_for_a_trial_that_died(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", *SMALL, "--client-learning-rates", "1", "--cache", str(cache)]
    command += ["--out", str(out), "--architectures"]
    assert main([*command, "si_cifg,cifg", "--set", "client.batch_size=3"]) == 0
    dying(monkeypatch, "cifg-lr1-seed0")  # before it could remove the older run
    assert main([*command, "si_cifg,cifg", "--overwrite"]) == 1
    runs = json.loads((out / "comparison.json").read_text())["runs"]
    assert [run["architecture"] for run in runs] == ["si_cifg"]
    capsys.readouterr()
    assert main([*command, "cifg", "--overwrite"]) == 1
    assert "report:" not in capsys.readouterr().err


def test_reports_of_comparisons_with_holes() -> None:
    results = [result("si_cifg", 1, 0, 5.25), result("si_cifg", 3, 0, None)]
    report = comparison_report(Comparison(["cifg", "si_cifg", "lstm"], [1, 3], results))
    assert report.rows == [
        ["CIFG", "none", "not finished", "", "not finished", "not finished"],
        ["SI-CIFG", "1", "5.250", "0.100", "5.250", "diverged"],
        ["LSTM", "none", "not finished", "", "not finished", "not finished"],
    ]
    assert "CIFG has no loss: no run finished that did not diverge." in report.findings
    json.dumps(report.values, allow_nan=False)
    spoiled = comparison_report(Comparison(["si_cifg"], [1, 3], results[1:]))
    assert spoiled.rows == [["SI-CIFG", "none", "diverged", "", "not finished", "diverged"]]


@pytest.mark.parametrize("kept", [1, 2, 3, 5])
def test_reports_of_tradeoffs_with_holes(kept: int) -> None:
    privacy = {"extrapolated": False}
    everything = [private_result(name, v, 0, 5.0, **privacy) for v in VALUES for name in LOSSES]
    report = tradeoff_report(Tradeoff(list(LOSSES), VALUES, everything[:kept], LEVELS))
    cells = [cell for row in report.rows for cell in row]
    assert cells.count("not finished") == len(everything) - kept
    assert any("has a loss." in sentence for sentence in report.findings)
    json.dumps(report.values, allow_nan=False)
