"""Series of studies from the command line: their plan, their runs, and going on."""

import json
from pathlib import Path

import pytest

from simulations.cli.main import main
from simulations.studies.ready import ready_series, ready_series_names
from simulations.studies.run import StudyRun
from simulations.studies.series import Series
from tests.simulations.cli.test_study import written

PART = """
name = "{name}"
question = "Does {name} learn?"
preset = "smoke"
[experiment.server]
rounds = 1
[[axes]]
key = "model.architecture"
values = ["{name}"]
"""


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """Return the file of a series of two studies of one run each."""
    for name in ("cifg", "si_cifg"):
        (tmp_path / f"{name}.toml").write_text(PART.format(name=name))
    path = tmp_path / "both.toml"
    path.write_text(
        'name = "both"\nquestion = "Who learns?"\nstudies = ["cifg.toml", "si_cifg.toml"]'
    )
    return path


@pytest.mark.slow
def test_a_series_is_planned_run_and_continued(
    series: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, where = tmp_path / "out", ["--cache", str(cache)]
    assert main(["study", str(series), "--dry-run", "--json", *where]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(one["study"], one["stages"][0]["trials"]) for one in plan] == [
        ("cifg", 1),
        ("si_cifg", 1),
    ]
    assert min(one["stages"][0]["seconds"] for one in plan) > 0
    assert not out.exists()

    assert main(["study", str(series), "--out", str(out), "--json", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["cifg", "si_cifg"]
    page = (out / "report.html").read_text()
    assert "Does si_cifg learn?" in page
    assert 'href="cifg/report.html"' in page
    before = {name: written(out / name) for name in told}
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out.split() == [
        str(out / name / "report.html") for name in ("cifg", "si_cifg", "")
    ]
    assert "Does si_cifg learn?" in (out / "report.html").read_text()
    assert main(["study", str(out), *where]) == 0
    assert {name: written(out / name) for name in told} == before
    capsys.readouterr()
    assert main(["study", str(out), "--dry-run", *where]) == 0
    assert "0 min of one core" in capsys.readouterr().out


def test_a_series_without_a_finished_run_has_no_report(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Series.from_file(series).write(tmp_path / "out")
    assert main(["report", str(tmp_path / "out")]) == 2
    assert "has a finished run yet; continue it with: fedsi study" in capsys.readouterr().err


def test_an_interrupted_series_says_how_the_series_goes_on(
    series: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(self: StudyRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StudyRun, "run", interrupted)
    out = tmp_path / "out"
    assert main(["study", str(series), "--out", str(out), "--cache", str(cache)]) == 1
    assert f"continue with fedsi study {out}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("studies = []\nname = 'x'", "the series has no studies"),
        ("studies = ['cifg.toml', 'cifg.toml']\nname = 'x'", "two studies are called cifg"),
        ("studies = ['none.toml']\nname = 'x'", "none.toml"),
        ("studies = ['cifg.toml']\nname = 'x'\nquestoin = 'y'", "question"),
    ],
)
def test_bad_series(
    text: str, expected: str, series: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    series.write_text(text)
    assert main(["study", str(series)]) == 2
    assert expected in capsys.readouterr().err


def test_a_series_is_not_overwritten_by_another(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "series.toml").write_text("name = 'other'\nstudies = ['a.toml']\n")
    assert main(["study", str(series), "--out", str(tmp_path / "out")]) == 2
    assert "holds another series" in capsys.readouterr().err
    assert main(["study", str(series), "--overwrite"]) == 2
    assert "neither --part nor --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ready_series_names())
def test_ready_series_are_valid(name: str) -> None:
    series = ready_series(name)
    assert series.name == name
    for study in series.studies:
        assert study.question.endswith("?")
        study.trials()
