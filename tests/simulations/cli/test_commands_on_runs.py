"""A finished run from the command line: words, texts, evaluation, export and errors."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import fedsi
from fedsi.checksums import Checksums, checksums_of
from fedsi.errors import UserError
from fedsi.inference.top_k.layer import rows_of
from fedsi.inference.top_k.table import OUTPUT_LAYERS
from server.runs.foreign import ADVICE
from simulations.cli.main import main
from tests.fedsi.inference.test_export import trained_model

SMALL = ["--preset", "smoke", "--set", "server.rounds=1", "--set", "server.cohort_size=4"]
LEARNED = ["--set", "model.architecture=transformer", "--set", "model.positions=learned"]
LEARNED += ["--set", "model.layers=1", "--set", "model.feedforward_size=16"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Run a small experiment of learned positions, which end at 20."""
    folder = tmp_path_factory.mktemp("using") / "run"
    assert main(["run", *SMALL, *LEARNED, "--out", str(folder), "--cache", str(cache)]) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Return the one-sentence error of a command."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    (*progress, sentence) = [line for line in captured.err.splitlines() if line[:1].strip()]
    assert all(line.endswith("...") for line in progress)
    assert sentence.startswith("error: ")
    return sentence


def test_next_words(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "predict", finished, "WORD3 word5 nothing", "--top", "5")
    assert found["read"] == "word3 word5 <oov>"
    shares = [candidate["probability"] for candidate in found["candidates"]]
    assert len(shares) == 5
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) + found["end_probability"] <= 1
    assert main(["predict", str(finished), "word3"]) == 0
    assert capsys.readouterr().out.count("word") >= 3


@pytest.mark.parametrize("layer", [name for name in OUTPUT_LAYERS if name != "int8"])
def test_next_words_by_another_output_layer(
    layer: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = answer(capsys, "predict", finished, "word3 word5")
    found = answer(capsys, "predict", finished, "word3 word5", "--output-layer", layer)
    assert [c["word"] for c in found["candidates"]] == [c["word"] for c in expected["candidates"]]
    names = ("end_probability", "unknown_probability")
    assert [found[name] for name in names] == pytest.approx([expected[n] for n in names], rel=0.02)


def test_output_layers_that_cannot_be(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("predict", finished, "word3", "--output-layer")
    assert "did you mean hire_q?" in refused(capsys, *asked, "hire_g")
    sentence = refused(capsys, *asked, "hire_q", "--candidates", "2")
    assert "--candidates 2 is below the 3 words that are asked for; give at least 3" in sentence
    assert "--rank 3 has no effect" in refused(capsys, *asked, "exact", "--rank", "3")
    with pytest.raises(UserError, match=r"own_models:Gru has no output layer with a row for each"):
        rows_of(trained_model(architecture="tests.own_models:Gru"))


def test_texts(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("generate", finished, "--prompt", "word3", "--length", "12")
    texts = [answer(capsys, *command, "--seed", seed)["text"] for seed in "0012"]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1
    assert all(text.startswith("word3") for text in texts)
    greedy = ("generate", finished, "--top", "1")
    assert answer(capsys, *greedy, "--seed", "1")["text"] == answer(capsys, *greedy)["text"]


def test_a_text_ends_where_learned_positions_do(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", str(finished), "--length", "40", "--temperature", "20", "--seed"]
    lengths = set()
    for seed in range(6):
        found = answer(capsys, *command, str(seed))
        lengths.add(len(found["tokens"]))
        assert found["ended"] or len(found["tokens"]) == 20
    assert max(lengths) == 20  # bos and 19 words are read, and one more is drawn
    for seed in range(6):
        assert main([*command, str(seed)]) == 0
    assert "the model has 20 learned positions" in capsys.readouterr().err


def test_evaluation_is_the_runs_last(
    finished: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("evaluate", finished, "--cache", cache)
    found = answer(capsys, *command, "--lengths", "12,18")
    with (finished / "rounds.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    names = [name for name in last if name.startswith("heldout_")]
    assert {name: found[name] for name in names} == {name: float(last[name]) for name in names}
    twelve, eighteen = found["lengths"]
    for score in (twelve, eighteen):
        assert score["tokens"] == found["heldout_tokens"]
        assert score["unigram_loss"] == pytest.approx(found["heldout_unigram_loss"])
    assert twelve["beyond"] is None
    assert 0 < eighteen["beyond"]["tokens"] < eighteen["tokens"]
    assert main([*map(str, command)]) == 0
    assert f"{float(last['heldout_loss']):.4f}" in capsys.readouterr().out


def test_evaluation_is_held_to_the_runs_corpus(
    copied: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copied / "summary.json", '"corpus_sha256": "', '"corpus_sha256": "0')
    seal(copied)
    assert "is not the one that" in refused(capsys, "evaluate", copied, "--cache", cache)


def test_export(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "m.pt2"
    found = answer(capsys, "export", finished, "--format", "torch-export", "--out", path)
    assert found["bytes"] == path.stat().st_size
    assert found["longest_sequence"] == 20
    assert Path(found["vocabulary"]).exists()


def test_export_needs_packages(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    sentence = refused(capsys, "export", finished, "--format", "onnx")
    assert "the package onnx is needed here" in sentence
    assert "pip install 'fedsi[export]'" in sentence
    assert not (finished / "model.onnx").exists()


def test_what_was_made_of_a_model_goes_with_it(copied: Path, cache: Path) -> None:
    made = [copied / name for name in ("model.onnx", "model.pt2", "heldout.json")]
    for path in made:
        path.touch()
    again = ["--preset", "smoke", "--set", "server.rounds=1", "--overwrite"]
    assert main(["run", *again, "--out", str(copied), "--cache", str(cache)]) == 0
    assert not any(path.exists() for path in made)


@pytest.mark.parametrize("command", ["predict", "generate", "evaluate", "export", "lengths"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def newer(run: Path) -> None:
    """Make it a run of a later version with one more key."""
    edit(run / "experiment.toml", "[model]", "[model]\nnew_part = 1")
    edit(run / "summary.json", f'"fedsi": "{fedsi.__version__}"', '"fedsi": "9.9"')
    seal(run)


def unfinished(run: Path) -> None:
    """Make it a run that has no summary yet."""
    (run / "summary.json").unlink()
    seal(run)


def seal(run: Path) -> None:
    """Write new checksums for a run's files."""
    names = [name for name in Checksums.read(run, "").whole if (run / name).exists()]
    checksums_of(run, names).write(run)


def changed(run: Path, name: str, old: str, new: str) -> None:
    """Make it a run that was another one from the beginning."""
    edit(run / name, old, new)
    seal(run)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (shutil.rmtree, "holds no run; name the folder of one"),
    "unfinished": (
        unfinished,
        "is not finished; finish it with: fedsi run --resume --out",
    ),
    "cut summary": (lambda run: cut(run / "summary.json"), "summary.json is damaged"),
    "no model": (lambda run: (run / "model.safetensors").unlink(), "No such file"),
    "cut model": (lambda run: cut(run / "model.safetensors"), "model.safetensors is damaged"),
    "flipped model": (lambda run: flip(run / "model.safetensors"), "model.safetensors is damaged"),
    "no vocabulary": (lambda run: (run / "vocabulary.txt").unlink(), "cannot read"),
    "flipped vocabulary": (lambda run: flip(run / "vocabulary.txt"), "vocabulary.txt is damaged"),
    "flipped experiment": (lambda run: flip(run / "experiment.toml"), "experiment.toml is damaged"),
    "no checksums": (lambda run: (run / "checksums.json").unlink(), "cannot read"),
    "flipped checksums": (lambda run: flip(run / "checksums.json"), "checksums.json"),
    "shorter vocabulary": (
        lambda run: changed(run, "vocabulary.txt", "word7\n", ""),
        "has 203 token ids and the model 204",
    ),
    "another model": (
        lambda run: changed(run, "experiment.toml", "layers = 1", "layers = 2"),
        "are not those of the model that",
    ),
    "heads": (
        lambda run: changed(run, "experiment.toml", "heads = 4", "heads = 3"),
        "model.heads (3) does not divide model.embedding_size (16)",
    ),
    "another version's key": (
        newer,
        f"was written by fedsi 9.9 and this is {fedsi.__version__}, which cannot use it",
    ),
    "another version's summary": (
        lambda run: changed(run, "summary.json", '"vocabulary_size"', '"words"'),
        "summary.json has no field vocabulary_size; it was written by other code of the same",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_run_is_refused(
    name: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = SPOILED[name]
    spoil(copied)
    assert expected in refused(capsys, "predict", copied, "word3")


def test_a_version_that_can_be_used_is_used(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(copied, "summary.json", f'"fedsi": "{fedsi.__version__}"', '"fedsi": "0.0.9"')
    answer(capsys, "predict", copied, "word3")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["predict", "RUN", ""], "no word in the text ''; give at least one word"),
        (["predict", "RUN", "word1", "--top", "0"], "Invalid value for '--top'"),
        (["predict", "RUN", "word1 " * 20], "21 tokens is longer than the 20 learned positions"),
        (["generate", "RUN", "--prompt", " "], "no word in the text ' '"),
        (["generate", "RUN", "--length", "0"], "Invalid value for '--length'"),
        (["generate", "RUN", "--temperature", "0"], "--temperature 0 is not allowed"),
        (["generate", "RUN", "--temperature", "nan"], "--temperature nan is not allowed"),
        (["evaluate", "RUN", "--lengths", "0"], "takes lengths of 1 or more, not 0"),
        (["evaluate", "RUN", "--lengths", "a"], "takes numbers separated by commas"),
        (["evaluate", "RUN", "--lengths", "8,21"], "21 tokens is longer than the 20"),
        (["export", "RUN", "--format", "tflite"], "'tflite' is not one of 'onnx', 'torch-export'"),
        (["export", "RUN"], "choose what to write with --format onnx or torch-export"),
    ],
)
def test_bad_input(
    arguments: list[str],
    expected: str,
    finished: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(finished) if word == "RUN" else word for word in arguments]
    more = ["--cache", str(cache)] if words[0] == "evaluate" else []
    assert expected in refused(capsys, *words, *more)


def test_a_run_of_a_task_with_lengths_has_a_table_over_them(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {
        "task.name": "arithmetic", "task.longest": 2, "task.operands": 3, "task.grid": "2x2,6x3",
        "task.grid_examples": 7, "data.population": 10, "server.rounds": 1,
        "server.cohort_size": 2, "model.architecture": "transformer", "model.heads": 2,
        "model.positions": "relative", "model.embedding_size": 8, "model.feedforward_size": 8,
    }  # fmt: skip
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    run = str(tmp_path / "run")
    assert main(["run", *sets, "--out", run, "--cache", str(cache)]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stop_accuracy_by_length"].keys() == {"2x2", "6x3"}
    assert set(summary["exact_match_by_length"].values()) <= {k / 7 for k in range(8)}
    said = capsys.readouterr().out
    assert "unigram" not in said
    assert "New examples of each length (digits x operands)" in said
    assert re.search(rf"6x3 .* {summary['token_accuracy_by_length']['6x3']:.3f} ", said)
    assert "<td>6x3</td>" in (tmp_path / "run" / "report.html").read_text().replace(" ", "")
    command = ["evaluate", run, "--cache", str(cache), "--json", "--lengths"]
    found = answer(capsys, *command, "6x3,2x2,1x9")
    assert [one["length"] for one in found["lengths"]] == ["6x3", "2x2", "1x9"]
    assert found["lengths"][0]["tokens"] == 7 * 4 * (7 + 1)
    for word, message in (
        ("6x3,6", "'6' is no length of additions with several operands"),
        ("6x3,6x3", "takes different values"),
        ("99999999x2", "7 examples of length 99999999x2"),
    ):
        assert main([*command, word]) == 2
        assert message in capsys.readouterr().err
    answered = answer(capsys, "predict", run, "07+05=00>", "--json", "--top", "10")
    assert len(answered["candidates"]) == 10
    assert answered["candidates"][0]["word"] in "0123456789+=>"
    written = answer(capsys, "generate", run, "--prompt", "07+05=", "--length", "3", "--json")
    assert written["text"].startswith("07+05=")
    assert "the whole question, which ends with =" in refused(capsys, "predict", run, "07+0")


def test_deviations_from_a_teacher(
    finished: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "deviations"), "--cache", str(cache)]
    found = answer(capsys, "deviations", finished, finished, "--control", finished, *out)
    (own,) = found["student"]
    assert (own["slope"], own["correlation"], own["spread"]) == pytest.approx((1, 1, 1))
    assert own["below"] == 0
    assert own["positions"] > 100
    assert found["control"] == [own]
    assert "not more than the control's, 1.00" in found["findings"][0]
    assert (tmp_path / "deviations/deviations.png").exists()
    few = answer(capsys, "deviations", finished, finished, "--positions", "50", *out)
    assert few["student"][0]["positions"] == 50
    assert "Without --control" in few["findings"][0]
    told = refused(capsys, "deviations", finished, finished, finished, *out)
    assert f"two students have seed 0, {finished} and {finished}; name one run" in told
    words = ["--set", "data.vocabulary_size=50", "--set", "server.rounds=1"]
    other = tmp_path / "other"
    assert main(["run", *SMALL, *words, "--out", str(other), "--cache", str(cache)]) == 0
    told = refused(capsys, "deviations", finished, other, *out)
    assert f"{other} has another vocabulary than the teacher {finished}" in told
    assert "nowhere holds no run" in refused(capsys, "deviations", tmp_path / "nowhere", other)


def with_other_columns(run: Path) -> None:
    changed(run, "rounds.csv", "upload_bytes", "sent_bytes")


EARLIER: dict[str, tuple[Callable[[Path], None], str, Sequence[str]]] = {
    "a field less": (
        lambda run: changed(run, "summary.json", '"losses"', '"lost"'),
        "summary.json has no field losses; it was written by other code of the same version",
        ("run", "report"),
    ),
    "another column": (
        with_other_columns,
        "rounds.csv was written by other code of the same version, fedsi 0.1.0: it has no column "
        "upload_bytes",
        ("report", "plot"),
    ),
    "a key more": (
        lambda run: changed(run, "experiment.toml", "[model]", "[model]\nnew_part = 1"),
        "experiment.toml was written by other code of the same version, fedsi 0.1.0: it has the "
        "key model.new_part, which is not known here",
        ("run", "report", "plot"),
    ),
}


@pytest.mark.parametrize("name", EARLIER)
def test_a_run_of_earlier_code_is_refused_in_one_sentence(
    name: str, copied: Path, cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spoil, expected, commands = EARLIER[name]
    spoil(copied)
    asked: dict[str, Sequence[str | Path]] = {
        "run": ("run", "--resume", "--out", copied, "--cache", cache),
        "report": ("report", copied),
        "plot": ("plot", copied, "--out", tmp_path / "plot.png"),
    }
    for command in commands:
        sentence = refused(capsys, *asked[command])
        assert expected.replace("0.1.0", fedsi.__version__) in sentence
        assert sentence.endswith(ADVICE)
