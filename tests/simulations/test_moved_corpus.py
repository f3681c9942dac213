"""Runs whose corpus has been moved: they are evaluated and continued where it is now."""

import json
from pathlib import Path

import pytest

from server.runs.folder import RunFolder
from simulations.cli.main import main
from tests.simulations.cli.test_commands_on_runs import answer, refused

SMALL = ["--set", "server.rounds=2", "--set", "server.cohort_size=4"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    rows = [
        {"user": user, "text": f"the {word} of user {user}"} for user in range(30) for word in "ab"
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def run(corpus: Path, tmp_path: Path, cache: Path) -> Path:
    folder = tmp_path / "run"
    assert main(["run", str(corpus), *SMALL, "--out", str(folder), "--cache", str(cache)]) == 0
    return folder


@pytest.fixture
def moved(run: Path, corpus: Path, tmp_path: Path) -> Path:
    assert run.exists(), "it has been trained before"
    return corpus.rename(tmp_path / "moved.jsonl")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.jsonl"
    path.write_text("\n".join(json.dumps({"user": n, "text": "another one"}) for n in range(30)))
    return path


def test_it_is_evaluated_there(
    run: Path, corpus: Path, other: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", run, "--cache", cache)
    before, moved = answer(capsys, *command), corpus.rename(corpus.with_name("moved.jsonl"))
    assert f"{corpus}, which is not there" in refused(capsys, *command)
    assert answer(capsys, *command, "--corpus", moved) == before
    assert "is not the one that" in refused(capsys, *command, "--corpus", other)


def test_it_is_continued_there_with_the_same_bits(
    run: Path, moved: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = ["--set", "server.rounds=4", "--cache", str(cache)]
    resume = ["run", "--resume", "--out", str(run), *longer]
    assert "with --corpus" in refused(capsys, *resume)
    continued = answer(capsys, *resume, "--corpus", moved)
    assert RunFolder(run).experiment().data.corpus == str(moved)
    straight = answer(capsys, "run", moved, *SMALL, *longer, "--out", tmp_path / "straight")
    assert (continued["rounds"], straight["rounds"]) == (4, 4)
    assert continued["model_sha256"] == straight["model_sha256"]
    assert answer(capsys, *resume) == continued, "the place is remembered"


def test_a_finished_run_needs_no_corpus_if_nothing_is_left_to_train(
    run: Path, moved: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert moved.exists()
    assert main(["run", "--resume", "--out", str(run), "--cache", str(cache)]) == 0
    assert "nothing was trained" in capsys.readouterr().err


@pytest.mark.parametrize("unfinished", [False, True])
def test_another_corpus_is_refused_and_changes_nothing(
    run: Path, other: Path, cache: Path, unfinished: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(run)
    hash_of_corpus = folder.corpus_sha256()
    if unfinished:
        longer = folder.experiment().updated({"server.rounds": 4})
        folder.claim(longer, overwrite=False, resume=True)
        assert folder.summary() is None
    assert folder.corpus_sha256() == hash_of_corpus is not None
    before = folder.experiment()
    resume = ("run", "--resume", "--out", run, "--cache", cache, "--corpus", other)
    assert "is not the one that" in refused(capsys, *resume)
    assert folder.experiment() == before


@pytest.mark.parametrize("resume", [(), ("--resume", "--preset", "smoke")])
def test_it_is_for_the_run_that_is_resumed_only(
    run: Path, other: Path, resume: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "run", *resume, "--out", run, "--corpus", other)
    assert "that --resume goes on with" in told


def test_a_task_that_makes_its_examples_has_none(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, small = tmp_path / "run", [*SMALL, "--set", "server.schedule=constant"]
    options = ["--preset", "addition", *small, "--out", str(folder), "--cache", str(cache)]
    assert main(["run", *options]) == 0
    for command in (["evaluate", str(folder)], ["run", "--resume", "--out", str(folder)]):
        told = refused(capsys, *command, "--cache", cache, "--corpus", tmp_path)
        assert "makes its own examples" in told
