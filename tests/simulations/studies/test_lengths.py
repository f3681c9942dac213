"""The study of length generalisation from the command line to its page."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fedsi import Experiment
from simulations.cli.main import main
from simulations.reports.lengths import lengths_figure, lengths_report, markdown
from simulations.studies.lengths import LengthResult, LengthStudy, LengthTrial
from tests.summaries import summary_of

SMALL = ["--preset", "smoke", "--set", "model.architecture=transformer", "--set", "model.layers=1"]
SMALL += ["--set", "server.rounds=1", "--set", "server.cohort_size=3"]
SMALL += ["--set", "server.evaluation_clients=5", "--lengths", "24,12", "--seeds", "1"]


def lengths(cache: Path, *arguments: str | Path) -> int:
    return main(["lengths", *SMALL, "--cache", str(cache), *map(str, arguments)])


def test_a_study_and_its_continuation(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    limit = ["--set", "model.max_length=12"]
    assert lengths(cache, *limit, "--positions", "learned,alibi", "--out", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "lengths.json").read_text())
    names = {"lengths.csv", "lengths.json", "lengths.md", "lengths.png", "lengths.svg"}
    assert {path.name for path in out.iterdir()} == names | {"report.html", "runs"}
    learned, alibi = (printed["positions"][name] for name in ("learned", "alibi"))
    assert [row["length"] for row in alibi] == [12, 24]
    assert learned[0]["loss"] > 0
    assert learned[1]["loss"] is None
    assert alibi[0]["loss_beyond"] is None
    assert alibi[1]["loss_beyond"] > 0
    rows = pd.read_csv(out / "lengths.csv")
    assert len(rows) == 4
    assert rows["loss"].isna().sum() == 1
    for name in ("report.html", "lengths.md"):
        assert "12 rows (model.max_length), so lengths 24 are missing" in (out / name).read_text()
    score = json.loads((out / "runs" / "alibi-seed0" / "lengths.json").read_text())["scores"][1]
    assert score["loss"] == alibi[1]["loss"]

    files = [*out.rglob("model.safetensors"), *out.rglob("runs/*/lengths.json")]
    before = [path.stat().st_mtime_ns for path in files]
    more = [*limit, "--positions", "learned,alibi,none", "--resume"]
    assert lengths(cache, *more, "--out", out) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    assert len(list(out.rglob("model.safetensors"))) == 3
    assert lengths(cache, *limit, "--out", out) == 2
    assert "already holds a study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--positions", "rope"], "model.positions = 'rope' is not allowed"),
        (["--positions", "fire,fire"], "--positions takes different values"),
        (["--lengths", "20,-1"], "--lengths takes lengths of 1 or more, not -1"),
        (["--lengths", ""], "--lengths takes different values"),
        (
            ["--set", "model.architecture=cifg", "--set", "model.layers=2"],
            "parts of a Transformer, and this experiment has",
        ),
        (["--set", "model.heads=3"], "model.heads (3) does not divide model.embedding_size (16)"),
        (["--positions", "rotary", "--set", "model.heads=16"], "rotary rotates pairs"),
        (["--positions", "learned", "--set", "model.max_length=8"], "8) learned positions are too"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
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
    assert lengths(cache, *arguments, "--out", out) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert expected in captured.err
    assert "Traceback" not in captured.err
    assert not out.exists()


def test_recurrent_cells_take_no_positions(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["run", "--preset", "smoke", "--set", "model.architecture=cifg"]
    command += ["--set", "model.positions=rotary"]
    assert main([*command, "--out", str(out), "--cache", str(cache)]) == 2
    expected = "model.positions=rotary has no effect with model.architecture=cifg, which does not"
    assert expected in capsys.readouterr().err
    assert not out.exists()


def result(positions: str, seed: int, *losses: float | None) -> LengthResult:
    """Return a run that scored these losses at 20 and 40; None diverged."""
    summary = summary_of(losses[0], architecture="transformer")
    scores = {
        length: {"sequence_length": length, "loss": loss, "beyond": {"loss": loss} if i else None}
        for i, (length, loss) in enumerate(zip((20, 40), losses, strict=False))
        if loss
    }
    return LengthResult(LengthTrial(positions, seed), summary, scores)


def test_findings_say_what_was_found() -> None:
    results = [
        result("none", 0, 5.0, 5.5), result("none", 1, 5.2, 5.5),
        result("learned", 0, 5.1), result("learned", 1, 5.1),
        result("fire", 0, 5.0, 4.9), result("fire", 1, None),
        result("t5", 0, None), result("t5", 1, None),
    ]  # fmt: skip
    study = LengthStudy(["none", "learned", "fire", "t5"], [20, 40], results, Experiment())
    report = lengths_report(study)
    text = " ".join(report.findings)
    assert "no positions: 5.100 ± 0.100 at 20, 5.500 ± 0.000 at 40, a change of +0.400." in text
    assert "FIRE: 5.000 at 20, 4.900 at 40, a change of -0.100 (1 of 2 seeds diverged)." in text
    assert "T5: no loss at any of these lengths (2 of 2 seeds diverged)." in text
    assert "20 rows (model.max_length), so lengths 40 are missing" in text
    assert report.rows[0] == ["no positions", "5.100 ± 0.100", "5.500 ± 0.000", "5.500 ± 0.000"]
    assert report.rows[1] == ["learned", "5.100 ± 0.000", "-", "-"]
    assert "| FIRE | 5.000 | 4.900 | 4.900 |" in markdown(report)
    whole, beyond = lengths_figure(study).axes
    assert len(whole.lines) == 3 + 2  # and the unigram model, and the length of training
    assert [line.get_xdata()[0] for line in beyond.lines[:2]] == [40, 40]  # type: ignore[index]
