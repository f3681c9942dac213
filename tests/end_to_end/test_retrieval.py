"""Retrieval from the command line: a run, its ranking, its page, and what it refuses."""

import json
from pathlib import Path

import pytest

from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.kept_results import kept_baselines
from tests.labelled import write_labelled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on a small labelled corpus, and its cache."""
    folder = tmp_path_factory.mktemp("retrieval")
    write_labelled(folder / "corpus.jsonl")
    values = {
        "data.label_column": "label",
        "data.vocabulary_size": 100,
        "task.label_source": "column",
        "task.loss": "decoupled_softmax",
        "client.step": "vectorised",
        "server.rounds": 6,
        "server.cohort_size": 5,
        "server.evaluate_every": 3,
    }
    sets = [text for key, value in values.items() for text in ("--set", f"{key}={value}")]
    places = ["--out", str(folder / "run"), "--cache", str(folder / "cache")]
    corpus = str(folder / "corpus.jsonl")
    assert main(["run", corpus, "--preset", "retrieval", *sets, *places]) == 0
    return folder


def test_a_run_learns_and_is_compared_with_a_keyword_search(folder: Path) -> None:
    summary = RunFolder(folder / "run").summary()
    compared = kept_baselines(folder / "run")
    assert summary is not None
    assert compared is not None
    assert compared.names == ("frequent labels", "BM25")
    assert summary.metric("precision_at_1") > compared.accuracy("frequent labels") + 0.2
    assert summary.metric("recall_at_10") == 1  # there are 6 labels


def test_predict_ranks_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["predict", str(folder / "run"), "network connect port", "--top", "2", "--json"]) == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["labels"][0]["label"] == "open socket"
    assert len(found["labels"]) == 2
    assert main(["predict", str(folder / "run"), "table of rows", "--top", "1"]) == 0
    assert "read csv" in capsys.readouterr().out


def test_an_evaluation_has_the_figures_of_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(folder / "run"), "--cache", str(folder / "cache"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    summary = RunFolder(folder / "run").summary()
    assert summary is not None
    for name, value in summary.heldout.items():
        assert found[f"heldout_{name}"] == pytest.approx(value, abs=1e-12)


def test_the_page_has_the_lines_of_the_rankings(folder: Path) -> None:
    assert main(["report", str(folder / "run")]) == 0
    (page,) = folder.glob("run/*.html")
    content = page.read_text(encoding="utf-8")
    assert "BM25" in content
    assert "frequent labels" in content
    assert "first labels right than" in content


@pytest.mark.parametrize(
    "command",
    [
        ["generate"],
        ["evaluate", "--lengths", "10"],
        ["predict", "a text", "--output-layer", "int8"],
        ["try"],
    ],
    ids=lambda command: command[0],
)
def test_commands_of_next_words_are_refused(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *more = command
    cache = ["--cache", str(folder / "cache")] if name == "evaluate" else []
    assert main([name, str(folder / "run"), *more, *cache]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert "ranks labels" in line


@pytest.mark.filterwarnings("ignore:the vocabulary was learned")
def test_a_private_run_warns_of_labels_that_clients_chose(folder: Path) -> None:
    private = {
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 1.0,
        "server.averaging": "uniform",
        "server.rounds": 1,
    }
    experiment = RunFolder(folder / "run").experiment().updated(private)
    with pytest.warns(UserWarning, match="labels are the most frequent ones"):
        simulate(experiment, cache=folder / "cache")
