"""Studies in which a trial fails: it is reported, and so are the results of the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulations.cli.main import main
from simulations.studies import runner

SMALL = ["--preset", "smoke", "--set", "server.rounds=3", "--set", "server.evaluate_every=1"]


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
    assert [place["chosen"] is None for place in result["places"]] == [True, False]
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
    assert [run["model.architecture"] for run in runs] == ["si_cifg"]
    capsys.readouterr()
    assert main([*command, "cifg", "--overwrite"]) == 1
    assert "report:" not in capsys.readouterr().err
