"""The study of length generalisation from the command line to its page."""

import json
from pathlib import Path

import pytest

from simulations.cli.main import main

SMALL = ["--preset", "smoke", "--set", "model.architecture=transformer", "--set", "model.layers=1"]
SMALL += ["--set", "server.rounds=1", "--set", "server.cohort_size=3"]
SMALL += ["--set", "server.evaluation_clients=5", "--lengths", "24,12", "--seeds", "1"]


def lengths(cache: Path, *arguments: str | Path) -> int:
    return main(["lengths", *SMALL, "--cache", str(cache), *map(str, arguments)])


@pytest.mark.slow
def test_a_study_and_its_continuation(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    limit = ["--set", "model.max_length=12"]
    assert lengths(cache, *limit, "--positions", "learned,alibi", "--out", out, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "lengths.json").read_text())
    names = {"lengths.csv", "lengths.json", "lengths.md", "lengths.png", "lengths.svg"}
    assert {path.name for path in out.iterdir()} == names | {
        "ngrams.json",
        "report.html",
        "runs",
        "study.toml",
    }
    assert len(printed["runs"]) == 2
    for name in ("report.html", "lengths.md"):
        assert "12 rows (model.max_length), so lengths 24 are missing" in (out / name).read_text()
    table = (out / "lengths.md").read_text()
    assert "|  | length 12 | length 24 | beyond at the longest |" in table
    scores = {
        name: json.loads((out / "runs" / f"{name}-seed0" / "heldout.json").read_text())["lengths"]
        for name in ("learned", "alibi")
    }
    assert scores["learned"]["12"]["loss"] > 0
    assert scores["learned"]["24"] is None
    assert scores["alibi"]["12"]["beyond"] is None
    assert scores["alibi"]["24"]["beyond"]["loss"] > 0
    assert f"| ALiBi | {scores['alibi']['12']['loss']:.3f} |" in table

    files = [*out.rglob("model.safetensors"), *out.rglob("runs/*/heldout.json")]
    before = [path.stat().st_mtime_ns for path in files]
    more = [*limit, "--positions", "learned,alibi,none", "--resume"]
    assert lengths(cache, *more, "--out", out) == 0
    assert [path.stat().st_mtime_ns for path in files] == before
    assert len(list(out.rglob("model.safetensors"))) == 3
    assert lengths(cache, *limit, "--out", out) == 2
    assert "already holds a lengths" in capsys.readouterr().err


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
