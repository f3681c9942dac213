"""Published files of a run: the real commands, and the content of the folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from fedsi import Experiment, UserError
from simulations.cli.main import main
from simulations.finished_run import open_run
from simulations.publish import BROUGHT, CLAIM, PUBLIC, publish, taken_for_public
from tests.end_to_end.test_noise import corpus, word_list
from tests.end_to_end.test_privacy import POISSON

SECURE: dict[str, Any] = {**POISSON, "privacy.secure_noise": True, "privacy.delta": 1e-4}


def words_of(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the settings of a private run on a corpus with a public list of words."""
    folder = tmp_path_factory.mktemp("texts")
    corpus(folder / "corpus.jsonl")
    return {
        **SECURE,
        "seed": 424_242,
        "data.corpus": str(folder / "corpus.jsonl"),
        "data.vocabulary": str(word_list(folder)),
        "data.heldout_by": "clients",
        "server.cohort_size": 4,
        "server.rounds": 3,
    }


@pytest.fixture(scope="module")
def finished(
    texts: dict[str, Any], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Return the folders of a run and of its publication."""
    folder = tmp_path_factory.mktemp("runs")
    places = ["--out", str(folder / "run"), "--cache", str(cache)]
    public = ["--publish", str(folder / "public")]
    assert main(["run", "--preset", "smoke", *words_of(texts), *places, *public]) == 0
    return folder / "run", folder / "public"


def test_only_what_epsilon_covers_is_published(
    finished: tuple[Path, Path], texts: dict[str, Any]
) -> None:
    run, public = finished
    names = {path.name for path in public.iterdir()}
    assert names == {"model.safetensors", "vocabulary.txt", "privacy.json"}
    assert (public / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    stated = json.loads((public / "privacy.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert stated["epsilon"] == summary["privacy"]["epsilon"] > 0
    assert (stated["delta"], stated["adjacency"]) == (1e-4, "add or remove one client")
    assert (stated["accountant"], stated["mechanism"]) == ("PLD", "gaussian")
    assert stated["covers"] == ["model.safetensors"]
    assert stated["settings"]["server.cohort_size"] == 4
    assert stated.keys() == {
        *("unit", *CLAIM, "rounds", "noise", "covers", "trusted", "taken_for_public"),
        *("not_covered", "settings", "model_sha256", "versions"),
    }
    assert not {"seed", "data.population_seed", "data.corpus", "data.vocabulary"} & set(
        stated["settings"]
    )
    text = (public / "privacy.json").read_text()
    losses = ("heldout_loss", "train_loss", "unigram_loss")
    for secret in ("424242", str(Path(texts["data.corpus"]).parent), *losses):
        assert secret not in text


def test_what_the_server_brings_is_taken_for_public() -> None:
    assert taken_for_public(Experiment()) == list(PUBLIC)
    brought = {"name": "server_distillation", "teacher": "a", "public_corpus": "pydocs"}
    experiment = Experiment(model={"init_from": "b"}, algorithm=brought)
    assert taken_for_public(experiment) == [*PUBLIC, *BROUGHT.values()]


def test_what_is_not_private_is_marked(finished: tuple[Path, Path]) -> None:
    summary = json.loads((finished[0] / "summary.json").read_text())
    marked = set(summary["not_private"])
    assert {"train_loss", "unigram_loss", "heldout_loss", "clients_failed", "status"} <= marked
    assert {"privacy.participations", "privacy.clipped_share"} <= marked
    assert not {"model_sha256", "rounds", "privacy", "privacy.epsilon", "privacy.delta"} & marked
    for name in marked:
        part, _, key = name.rpartition(".")
        assert key in (summary[part] if part else summary)


def test_exports_are_published_too(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(finished[0]), "--publish", str(tmp_path / "new" / "public")]
    assert main([*command, "--format", "torch-export", "--heldout-is-public", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    public = Path(told["published"])
    assert sorted(path.name for path in public.iterdir()) == told["files"]
    assert told["files"] == ["model.pt2", "model.safetensors", "privacy.json", "vocabulary.txt"]
    stated = json.loads((public / "privacy.json").read_text())
    assert stated["heldout_declared_public"]["heldout_loss"] > 0
    assert stated["covers"] == ["model.pt2", "model.safetensors"]
    assert load_file(public / "model.safetensors")
    assert main(command) == 2
    assert "is not an empty folder" in capsys.readouterr().err


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no privacy": ({}, "it has no privacy, so no epsilon covers its model"),
    "a guessable seed": (POISSON, "its noise and its cohorts follow from the seed"),
    "no noise": ({**SECURE, "privacy.noise_multiplier": 0.0}, "epsilon is infinite"),
    "an extrapolation": ({**SECURE, "privacy.population": 10**6}, "does not cover the simulated"),
    "a counted vocabulary": ({**SECURE, "data.corpus": "pydocs"}, "data.vocabulary=count is"),
    "byte pairs": (
        {**SECURE, "data.corpus": "pydocs", "data.vocabulary": "bpe"},
        "data.vocabulary=bpe is learned from the training clients' text",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_epsilon_covers_is_refused_before_it_is_trained(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, sentence = REFUSED[name]
    places = ["--out", str(tmp_path / "run"), "--publish", str(tmp_path / "public")]
    assert main(["run", "--preset", "smoke", *words_of(settings), *places]) == 2
    assert sentence in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_sentences_of_training_clients_are_not_public(
    finished: tuple[Path, Path],
    texts: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = words_of({**texts, "data.heldout_by": "sentences"})
    places = ["--out", str(tmp_path / "run"), "--publish", str(tmp_path / "public")]
    command = ["run", "--preset", "smoke", *settings, *places, "--heldout-is-public"]
    assert main(command) == 2
    assert "held-out sentences are those of training clients" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
    of_clients = open_run(finished[0])
    of_sentences = replace(
        of_clients, experiment=of_clients.experiment.updated({"data.heldout_by": "sentences"})
    )
    with pytest.raises(UserError, match="--heldout-is-public is not possible with"):
        publish(of_sentences, tmp_path / "public", {}, heldout_is_public=True)
    publish(of_sentences, tmp_path / "public", {}, heldout_is_public=False)


def test_options_that_need_each_other(
    finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, taken = str(finished[0]), str(finished[1])
    for command, sentence in (
        (["run", "--heldout-is-public"], "no effect without --publish"),
        (["export", run, "--heldout-is-public"], "no effect without --publish"),
        (["export", run, "--publish", str(tmp_path), "--out", "x"], "either --out or --publish"),
        (["export", run, "--publish", taken], "is not an empty folder"),
    ):
        assert main(command) == 2
        assert sentence in capsys.readouterr().err


def test_a_run_that_its_clients_ended_is_not_published(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    run = open_run(finished[0])
    ended = replace(run, summary=replace(run.summary, status="diverged"))
    with pytest.raises(UserError, match=r"ended early \(diverged\) because of its clients' text"):
        publish(ended, tmp_path / "public", {}, heldout_is_public=False)
    assert not (tmp_path / "public").exists()


@pytest.mark.filterwarnings("always")
def test_a_private_run_with_a_counted_vocabulary_warns(
    texts: dict[str, Any], cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for vocabulary, warned in (("count", True), (texts["data.vocabulary"], False)):
        settings = words_of({**texts, "data.vocabulary": vocabulary, "server.rounds": 1})
        command = ["run", "--preset", "smoke", *settings, "--cache", str(cache), "--overwrite"]
        assert main([*command, "--out", str(tmp_path)]) == 0
        warnings = [
            line for line in capsys.readouterr().err.splitlines() if "epsilon does not" in line
        ]
        assert len(warnings) == warned
        assert all("learned from the training clients' text" in line for line in warnings)
