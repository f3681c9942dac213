"""Sweeps and studies from the command line: their runs, continuation, and errors."""

import json
import re
from pathlib import Path

import pytest

from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.studies.study import Study
from tests.simulations.cli.test_report import again

SMALL = ["--preset", "smoke", "--set", "server.rounds=2", "--set", "server.evaluate_every=1"]
VARIED = ["--vary", "server.learning_rate=0.01,0.1", "--vary", "client.max_steps=1"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Run a sweep over two keys."""
    folder = tmp_path_factory.mktemp("study") / "out"
    assert main(["sweep", *SMALL, *VARIED, "--out", str(folder), "--cache", str(cache)]) == 0
    return folder


def written(folder: Path) -> dict[str, int]:
    """Return when each file of the runs was written."""
    return {str(path): path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.json")}


def test_a_sweep_chooses_on_validation_clients(swept: Path) -> None:
    values = json.loads((swept / "sweep.json").read_text())
    (place,) = values["places"]
    assert len(place["settings"]) == 2
    losses = [setting["validation"]["loss"] for setting in place["settings"]]
    assert place["chosen"]["validation"]["loss"] == min(losses)
    assert place["chosen"]["test"]["loss"] != min(losses)
    assert values["ngrams"]["bigram"]["loss"] < values["ngrams"]["unigram"]["loss"]
    assert values["ngrams"]["bigram"].keys() <= place["chosen"]["test"].keys(), "the same metrics"
    assert (swept / "runs" / "learning_rate0.01-max_steps1-seed0" / "summary.json").exists()


def test_a_finished_folder_is_only_reported(
    swept: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, page = written(swept), (swept / "report.html").read_text()
    (swept / "report.html").unlink()
    assert main(["study", str(swept), "--cache", str(cache), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((swept / "sweep.json").read_text())
    assert written(swept) == before
    assert (swept / "report.html").read_text() == page


@pytest.mark.slow
def test_a_study_goes_on_with_more_values(swept: Path, cache: Path) -> None:
    before = written(swept)
    study = Study.from_file(swept / "study.toml").updated(
        axes=[
            {"key": "server.learning_rate", "values": [0.01, 0.1, 0.3]},
            {"key": "client.max_steps", "values": [1]},
        ],
        tune=["server.learning_rate"],
    )
    (swept / "more.toml").write_text(study.to_toml())
    more = ["study", str(swept / "more.toml"), "--out", str(swept), "--resume"]
    assert main([*more, "--cache", str(cache)]) == 0
    after = written(swept)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def _check_continued(shorter: Path, longer: Path, cache: Path) -> None:
    """The longer run has the shorter one's rounds, computed once, and the bits of one long run."""
    first, second = (RunFolder(path).records() for path in (shorter, longer))
    assert [record.train_seconds for record in first] == [r.train_seconds for r in second[:2]]
    assert len(second) == 3
    summary = RunFolder(longer).summary()
    whole = simulate(RunFolder(longer).experiment(), cache=cache).summary
    assert summary
    assert summary.model_sha256 == whole.model_sha256


def test_halving_gives_the_best_more_rounds(
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = Path(__file__).parents[3] / "docs" / "studies.md"
    blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    (halving,) = [block for block in blocks if 'design = "halving"' in block]
    (tmp_path / "h.toml").write_text(halving)
    out = tmp_path / "out"
    command = ["study", str(tmp_path / "h.toml"), "--out", str(out), "--cache", str(cache)]
    assert main([*command, "--json"]) == 0
    (place,) = json.loads(capsys.readouterr().out)["places"]
    assert place["chosen"]["values"] == {"server.learning_rate": 0.1}
    names = {path.name for path in (out / "runs").iterdir() if path.is_dir()}
    assert names == {"lr1e-06-seed0-rounds1", "lr0.1-seed0-rounds1", "lr0.1-seed0"}
    assert "after 1 rounds" in (out / "study.md").read_text()
    again(out, ["report.html", "study.json", "study.csv"], monkeypatch)
    _check_continued(out / "runs" / "lr0.1-seed0-rounds1", out / "runs" / "lr0.1-seed0", cache)
    before = written(out)
    assert main(["study", str(out), "--cache", str(cache)]) == 0
    assert written(out) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--vary", "server.learnin_rate=1"], "did you mean server.learning_rate?"),
        (["--vary", "server.learning_rate="], "has no values; give at least one"),
        (["--vary", "server.learning_rate"], "--vary takes KEY=a,b,c"),
        (["--vary", "server.learning_rate=1,1.0"], "has the value 1 twice"),
        (["--vary", "client.epochs=1", "--vary", "client.epochs=2"], "two axes are called"),
        (["--vary", "client.epochs=1,0"], "client.epochs = 0 is not allowed"),
        (["--vary", "seed=1,2"], "set seeds to their number"),
        ([], "a sweep needs something to vary"),
        (
            ["--vary", "client.epochs=1,2", "--set", "server.evaluation_clients=6"],
            "on the other: at least 10 are needed; set server.evaluation_clients=10",
        ),
        (
            ["--vary", "client.epochs=1,2", "--set", "client.epochs=3"],
            "--set client.epochs would change nothing, because client.epochs is varied here",
        ),
    ],
)
def test_bad_sweeps(
    arguments: list[str],
    expected: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", *SMALL, *arguments, "--out", str(out), "--cache", str(cache)]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "Traceback" not in captured.err
    assert not out.exists()


def test_arms_with_values_of_their_own_are_named(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--set`` says which arms it does not reach, and is refused if it reaches none."""
    source = tmp_path / "arms.toml"
    source.write_text(
        'preset = "smoke"\n[[axes]]\nname = "arm"\nvalues = ["long", "usual"]\n'
        'changes = [{ "server.rounds" = 3, "client.epochs" = 2 }, { "client.epochs" = 1 }]\n'
    )
    command = ["study", str(source), "--dry-run", "--cache", str(cache)]
    assert main([*command, "--set", "server.rounds=2"]) == 0
    told = "--set server.rounds does not reach arms with values of their own: arm=long (3)\n"
    assert told in capsys.readouterr().err
    assert main([*command, "--set", "client.epochs=4"]) == 2
    assert "--set client.epochs would change nothing" in capsys.readouterr().err
    assert main([*command, "--set", "client.epochs=2"]) == 0


def test_a_study_goes_on_in_a_folder_of_its_own_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--out`` says that the name is the ready study's, although there is such a folder."""
    (tmp_path / "compare").mkdir()
    monkeypatch.chdir(tmp_path)
    command = ["study", "compare", "--out", "compare", "--resume", "--set", "server.rouns=1"]
    assert main(command) == 2
    assert "server.rouns" in capsys.readouterr().err


def test_bad_studies(
    swept: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["--out", str(swept), "--resume", "--cache", str(cache)]
    before = (swept / "study.toml").read_text()
    other = tmp_path / "other.toml"
    other.write_text(
        'preset = "smoke"\nname = "sweep"\n[[axes]]\nkey = "client.epochs"\nvalues = [1]\n'
    )
    experiment, single = tmp_path / "experiment-alone.toml", tmp_path / "single.toml"
    experiment.write_text("seed = 3\n[server]\nrounds = 2\n")
    single.write_text('[axes]\nkey = "client.epochs"\n')
    for command, expected in (
        (["study", str(experiment)], f"experiment; run it with: fedsi run {experiment}"),
        (["study", str(single)], "head each axis with [[axes]]"),
        (["study", "compar"], "there is no study 'compar'"),
        (["study", "compar"], "did you mean compare?"),
        (["study", str(tmp_path)], "holds no study"),
        (["study", str(tmp_path / "none.toml")], "cannot read the study"),
        (["study", str(swept), "--set", "client.epochs=2"], "is continued unchanged"),
        (["study", str(other), *there], "holds another study: sweep varies"),
        (["sweep", *SMALL, *VARIED, "--out", str(swept)], "already holds a sweep"),
        (
            ["sweep", *SMALL, "--vary", "server.learning_rate=0.1,0.3", *VARIED[2:], *there],
            f"{swept} holds a study with server.learning_rate = 0.01, which this one lacks",
        ),
        (
            ["sweep", *SMALL, *VARIED, "--set", "client.batch_size=3", *there],
            "another experiment (client.batch_size is ",
        ),
    ):
        assert main(command) == 2
        captured = capsys.readouterr()
        assert expected in captured.err
        assert "Traceback" not in captured.err
    assert (swept / "study.toml").read_text() == before
