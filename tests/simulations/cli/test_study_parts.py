"""Studies whose trials are run in parts by several processes that share a folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.runs.folder import RunFolder
from server.runs.lock import held
from simulations.cli.main import main
from simulations.studies.part import StudyPart
from simulations.studies.study import Study

STUDY = """
preset = "smoke"
tune = ["client.learning_rate"]

[experiment.server]
rounds = 1

[[axes]]
key = "client.learning_rate"
values = [0.5, 1.0, 2.0]
"""
COMMAND = [sys.executable, "-m", "simulations.cli.main", "study"]
CLUSTER = Path(__file__).parents[3] / "docs" / "cluster.md"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_study.toml"
    path.write_text(STUDY)
    return path


def hashes(folder: Path) -> dict[str, str]:
    summaries = {path.name: RunFolder(path).summary() for path in (folder / "runs").iterdir()}
    return {name: summary.model_sha256 for name, summary in summaries.items() if summary}


@pytest.mark.slow
def test_two_parts_in_two_processes_are_the_whole_study(
    file: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    place = ["--cache", str(cache), "--json"]
    jobs = [
        subprocess.Popen(
            [*COMMAND, str(file), "--part", part, "--out", str(shared), *place],
            stdout=subprocess.PIPE, text=True,
        )
        for part in ("1/2", "2/2")
    ]  # fmt: skip
    told = [json.loads(job.communicate(timeout=600)[0]) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert [one["trials"] for one in told] == [2, 1]
    assert not (shared / "report.html").exists()
    counted = (shared / "ngrams.json").read_bytes()
    # The last call only reports, and so does a part that is run again.
    written = {path: path.stat().st_mtime_ns for path in shared.rglob("summary.json")}
    assert main(["study", str(file), "--part", "2/2", "--out", str(shared), *place]) == 0
    assert main(["study", str(shared), *place]) == 0
    assert {path: path.stat().st_mtime_ns for path in shared.rglob("summary.json")} == written
    assert main(["study", str(file), "--out", str(whole), *place]) == 0
    assert hashes(shared) == hashes(whole)
    assert counted == (whole / "ngrams.json").read_bytes()
    assert len(hashes(whole)) == 3
    lines = [line for line in capsys.readouterr().out.splitlines() if '"places"' in line]
    places = [json.loads(line)["places"][0]["chosen"]["test"]["loss"] for line in lines]
    assert len(places) == 2
    assert places[0] == places[1]


@pytest.mark.slow  # it waits 20 seconds for the other process
def test_a_trial_that_another_part_runs_is_left_to_it(
    file: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["study", str(file), "--part", "3/3", "--out", str(out), "--cache", str(cache)]
    with held(out / "runs" / "learning_rate2-seed0"):
        assert main(command) == 1
    captured = capsys.readouterr()
    assert "part 3/3: 0 of 1 trials are finished" in captured.out
    assert "is in use by another process of fedsi" in captured.err
    assert not list(out.rglob("summary.json"))


def test_parts_are_all_trials_once() -> None:
    study = Study.from_toml(STUDY)
    for parts in (1, 2, 3):
        found = [t.name for n in range(parts) for t in StudyPart(n + 1, parts).trials(study)]
        assert sorted(found) == sorted(trial.name for trial in study.trials())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--part", "3/2"], "--part takes I/N with I from 1 to N, such as 1/8, not '3/2'"),
        (["--part", "0/2"], "--part takes I/N"),
        (["--part", "one"], "--part takes I/N"),
        (["--part", "1/2"], "--part needs --out"),
        (["--part", "1/2", "--out", "o", "--overwrite"], "cannot be combined"),
        (["--part", "4/4", "--out", "o"], "use at most 3 parts"),
    ],
)
def test_wrong_parts(
    options: list[str],
    expected: str,
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(file.parent)
    assert main(["study", str(file), *options]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_halving_has_no_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = STUDY.replace("tune =", 'design = "halving"\nfirst_rounds = 1\ntune =')
    (tmp_path / "h.toml").write_text(study.replace("rounds = 1\n\n", "rounds = 2\n\n"))
    out = tmp_path / "out"
    assert main(["study", str(tmp_path / "h.toml"), "--part", "1/2", "--out", str(out)]) == 2
    assert "design = halving has no parts" in capsys.readouterr().err
    assert not out.exists()


def test_the_script_for_slurm_is_a_script() -> None:
    scripts = re.findall(r"^```bash\n(#!.*?)^```", CLUSTER.read_text(), re.MULTILINE | re.DOTALL)
    assert scripts
    for script in scripts:
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
