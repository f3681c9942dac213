"""Relative paths: to the working folder, to an experiment's file, and in a run used elsewhere."""

import json
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.experiment import parse_overrides
from server.runs.folder import RunFolder
from simulations.cli import options
from simulations.cli.main import main

TINY = ["--set", "server.rounds=1", "--set", "server.cohort_size=3"]
TINY += ["--set", "model.hidden_size=8", "--set", "model.embedding_size=8"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a corpus in it."""
    rows = [{"user": f"u{n}", "text": f"see you at {n % 5}"} for n in range(40)]
    (tmp_path / "posts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_evaluated_and_resumed_from_another_folder(
    work: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["--cache", str(cache), "--set", "data.corpus=posts.jsonl"]
    assert main(["run", *places, *TINY, "--out", "run"]) == 0
    assert RunFolder(Path("run")).experiment().data.corpus == str(work / "posts.jsonl")
    monkeypatch.chdir("other")
    assert main(["evaluate", "../run", "--cache", str(cache)]) == 0
    assert main(["run", "--resume", "--out", "../run", "--cache", str(cache)]) == 0


def test_a_study_is_resumed_from_another_folder(
    work: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = ["--architectures", "cifg", "--client-learning-rates", "1", "--cache", str(cache)]
    settings = ["--set", "data.corpus=posts.jsonl", *TINY]
    assert main(["compare", *once, *settings, "--out", "study"]) == 0
    monkeypatch.chdir("other")
    settings[1] = "data.corpus=../posts.jsonl"
    assert main(["compare", *once, *settings, "--out", "../study", "--resume"]) == 0


def test_paths_in_a_file_are_relative_to_it(work: Path) -> None:
    lines = '[data]\ncorpus = "../posts.jsonl"\nvocabulary = "words.txt"\n'
    lines += '[devices]\navailability = "trace"\ntrace = "trace.csv"\n'
    (work / "other" / "mine.toml").write_text(lines)
    (work / "other" / "words.txt").write_text("see\nyou\n")
    (work / "other" / "trace.csv").write_text("client,start,end\n")
    read = Experiment.from_file(Path("other/mine.toml"))
    assert read.data.corpus == str(work / "posts.jsonl")
    assert read.data.vocabulary == str(work / "other" / "words.txt")
    assert read.devices.trace == str(work / "other" / "trace.csv")


def test_only_paths_of_something_are_made_absolute(work: Path) -> None:
    (work / "pydocs").mkdir()
    (work / "count").write_text("")
    experiment = Experiment(devices={"availability": "trace", "trace": "missing.csv"})
    assert experiment.located(work) == experiment
    elsewhere = Experiment(data={"corpus": str(work / "posts.jsonl")})
    assert elsewhere.located(work / "other") == elsewhere


def test_a_path_through_a_link_is_kept(work: Path) -> None:
    (work / "far" / "deep").mkdir(parents=True)
    (work / "far" / "posts.jsonl").write_text("")
    (work / "link").symlink_to(work / "far" / "deep")
    found = Experiment(data={"corpus": "link/../posts.jsonl"}).located(work).data.corpus
    assert Path(found).samefile(work / "far" / "posts.jsonl")


@pytest.mark.parametrize("arguments", [[], ["--preset", "smoke", "--set", "data.population=50"]])
def test_a_corpus_can_be_named_in_place_of_an_experiment(
    work: Path, cache: Path, arguments: list[str]
) -> None:
    arguments = [*arguments, *TINY, "--cache", str(cache), "--out", "run"]
    assert main(["run", "posts.jsonl", *arguments]) == 0
    assert RunFolder(Path("run")).experiment().data.corpus == str(work / "posts.jsonl")


def test_a_corpus_without_an_ending_can_be_named_with_its_format(work: Path) -> None:
    Path("posts").write_bytes((work / "posts.jsonl").read_bytes())
    named = options.chosen_experiment(Path("posts"), None, ["data.format=jsonl"])
    assert named.data.corpus == "posts"
    with pytest.raises(UserError, match="posts is neither an experiment, which is TOML, nor a cor"):
        options.chosen_experiment(Path("posts"), None, [])


def test_a_tilde_is_the_home_folder(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(work))
    typed = parse_overrides(["data.corpus=~/posts.jsonl", "data.vocabulary=~/words.txt"])
    located = Experiment().updated(typed).located(Path("/"))
    assert located.data.corpus == str(work / "posts.jsonl")
    assert located.data.vocabulary == str(work / "words.txt")


def test_a_folder_and_a_corpus_of_fedsi_can_be_named_too(work: Path) -> None:
    assert options.named(work, None).data.corpus == str(work)
    assert options.named(Path("synthetic"), "smoke").data.corpus == "synthetic"


@pytest.mark.usefixtures("work")
def test_what_is_no_corpus_is_read_as_an_experiment() -> None:
    Path("mine").write_text("seed = 3\n")
    assert options.named(Path("mine"), None).seed == 3
    with pytest.raises(UserError, match="not both"):
        options.named(Path("mine"), "smoke")
    with pytest.raises(UserError, match=r"there is no file missing\.csv"):
        options.named(Path("missing.csv"), None)


def test_the_folder_of_a_run_is_continued_by_another_command(work: Path) -> None:
    (work / "other" / "experiment.toml").write_text("")
    with pytest.raises(UserError, match="continue it with: fedsi run --resume --out other"):
        options.named(Path("other"), None)
