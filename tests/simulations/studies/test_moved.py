"""Studies whose corpus has been moved: they are continued where it is now."""

import json
from pathlib import Path

import pytest

from server.runs.folder import RunFolder
from simulations.cli.main import main
from simulations.studies.results import RUNS
from simulations.studies.study import STUDY, Study
from tests.simulations.cli.test_commands_on_runs import answer, refused

SMALL = """
preset = "smoke"
name = "small"
[experiment.data]
corpus = "a.jsonl"
[experiment.server]
rounds = 2
cohort_size = 4
[[axes]]
key = "client.epochs"
values = [1, 2]
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    rows = [
        {"user": user, "text": f"the {word} of user {user} is {user}{word} and the same"}
        for user in range(30)
        for word in "ab"
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def file(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert corpus.exists()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def folder(file: Path, tmp_path: Path, cache: Path) -> Path:
    path = tmp_path / "study"
    assert main(["study", str(file), "--out", str(path), "--cache", str(cache)]) == 0
    return path


def models(folder: Path) -> dict[str, str]:
    summaries = {path.name: RunFolder(path).summary() for path in (folder / RUNS).iterdir()}
    return {name: found.model_sha256 for name, found in summaries.items() if found}


def test_it_is_continued_there_with_the_same_bits(
    file: Path, folder: Path, corpus: Path, tmp_path: Path, cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = ("study", folder, "--seeds", "2", "--cache", cache)
    moved, before = corpus.rename(tmp_path / "moved.jsonl"), models(folder)
    assert f"{corpus}, which is not there" in refused(capsys, *more)
    answer(capsys, *more, "--corpus", moved)
    assert len(models(folder)) == 4
    assert {name: models(folder)[name] for name in before} == before
    assert answer(capsys, *more) is not None, "the place is remembered"

    moved.rename(corpus)
    straight = tmp_path / "straight"
    answer(capsys, "study", file, "--seeds", "2", "--out", straight, "--cache", cache)
    assert models(straight) == models(folder)


def test_its_file_with_the_new_place_names_the_command(
    file: Path, folder: Path, corpus: Path, tmp_path: Path, cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    moved = corpus.rename(tmp_path / "moved.jsonl")
    file.write_text(SMALL.replace("a.jsonl", "moved.jsonl"))
    again = ("study", file, "--resume", "--out", folder, "--cache", cache)
    told = refused(capsys, *again)
    assert f"data.corpus is {corpus} there and {moved} here" in told
    assert f"fedsi study {folder} --corpus {moved}" in told
    assert "--corpus" not in refused(capsys, *again, "--set", "client.batch_size=3")
    answer(capsys, "study", folder, "--corpus", moved, "--cache", cache)
    answer(capsys, *again)


def test_another_corpus_is_refused_and_changes_nothing(
    folder: Path, corpus: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(corpus.read_text().replace("the", "no"))
    first = min((folder / RUNS).iterdir())
    for path in first.iterdir():
        if path.name != "experiment.toml":  # a run that has only begun
            path.unlink()
    assert RunFolder(first).corpus_sha256() is None
    files = [folder / STUDY, *sorted(folder.rglob("experiment.toml"))]
    before = [path.read_text() for path in files]
    told = refused(capsys, "study", folder, "--corpus", other, "--cache", cache)
    assert "is not the one that" in told
    assert [path.read_text() for path in files] == before


def test_it_is_for_the_folder_of_a_study_with_one_corpus_only(
    file: Path, corpus: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("--corpus", corpus, "--cache", cache)
    assert "name the folder of that study" in refused(capsys, "study", file, *here)

    several = tmp_path / "several"
    several.mkdir()
    axis = f'[[axes]]\nkey = "data.corpus"\nvalues = ["{corpus}", "pydocs"]\n'
    (several / STUDY).write_text(Study.from_file(file).located(tmp_path).to_toml() + axis)
    assert "have several corpora" in refused(capsys, "study", several, *here)

    series = tmp_path / "series"
    series.mkdir()
    (series / "series.toml").write_text('name = "s"\nstudies = ["../small.toml"]\n')
    told = refused(capsys, "study", series, *here)
    assert f"such as {series / 'small'}" in told
