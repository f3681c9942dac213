"""``fedsi data``, and runs on corpora of many kinds."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.data.corpora_in_memory import corpus_from_mapping
from fedsi.data.vocabulary import load_vocabulary
from simulations import simulate
from simulations.cli.main import main
from tests.conftest import shared_file
from tests.fedsi.data.formats.writers import written

REPOSITORY = Path(__file__).parents[3]
TEXTS = {f"u{k}": [f"so it begins number {'abcdefghij'[k % 10]}"] * 4 for k in range(40)}
SMALL = {
    "data.vocabulary_size": 300,
    "model.embedding_size": 8,
    "model.hidden_size": 8,
    "server.rounds": 2,
    "server.cohort_size": 4,
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def described(*arguments: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["data", "describe", *arguments, "--json", "--cache", str(cache)]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_describe_counts_a_corpus(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path, "jsonl", TEXTS))
    facts = described(path, cache=cache, capsys=capsys)
    assert (facts["training_clients"], facts["heldout_clients"]) == (36, 4)
    assert (facts["training_examples"], facts["words"]) == (144, 40 * 4 * 5)
    assert facts["words_per_client"]["p50"] == 20
    assert facts["distinct_words"] == 14
    assert facts["oov_rate_heldout"] == 0
    unigram, bigram, trigram = facts["ngrams"]
    # Four words are certain after the one before, one is one of ten, and then the sentence ends.
    assert unigram["perplexity"] > 6
    assert bigram["perplexity"] < 2
    assert trigram["recall_at_1"] == pytest.approx(0.8)
    pictures = Path("results/describe-c.jsonl")
    assert {p.name for p in pictures.iterdir()} == {
        "clients.png",
        "clients.svg",
        "description.json",
    }
    assert json.loads((pictures / "description.json").read_text()) == facts
    assert main(["data", "describe", path, "--out", "d", "--cache", str(cache)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"trigram +│ +1\.\d", shown)
    assert re.search(r"held-out examples +│ 16 ", shown)
    # What serves programs, and what there is nothing of, is in the file.
    assert not re.search(r"digest|sha256|without spaces|left out|[a-z]_[a-z]", shown)
    assert Path("d/clients.png").exists()


def test_describe_knows_what_nobody_can_beat(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = described("synthetic", "--set", "data.population=50", cache=cache, capsys=capsys)
    assert facts["best_possible_loss"] < facts["unigram_loss"]


def test_a_bad_corpus_leaves_no_folder(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "describe", "none.csv", "--cache", str(cache)]) == 2
    assert "there is no corpus none.csv" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_prepared_corpus_is_not_read_again(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path, "csv", TEXTS))
    arguments = ["data", "prepare", path, "--cache", str(cache)]
    assert main([*arguments, "--json"]) == 0
    first = capsys.readouterr()
    facts = json.loads(first.out)
    assert (facts["clients"], facts["examples"]) == (40, 160)
    assert "reading c.csv ..." in first.err
    assert main(arguments) == 0
    second = capsys.readouterr()
    assert "reading" not in second.err
    assert f"store: {facts['folder']}\n" in second.err


def test_a_corpus_in_memory(cache: Path) -> None:
    experiment = Experiment().updated(SMALL)
    corpus = corpus_from_mapping(TEXTS, name="mine")
    result = simulate(experiment, cache=cache, corpus=corpus, out="r", workers=2)
    assert result.summary.corpus == "mine"
    assert result.summary.population == 40
    assert Experiment.from_file(Path("r/experiment.toml")).data.corpus == "mine"
    again = simulate(experiment, cache=cache, corpus=corpus, out="r", resume=True)
    assert again.summary == result.summary
    with pytest.raises(UserError, match="another experiment"):
        simulate(experiment.updated({"seed": 1}), cache=cache, corpus=corpus, out="r", resume=True)


@pytest.mark.parametrize(
    ("source", "file"), [("count", "vocabulary.txt"), ("bpe", "tokenizer.json")]
)
def test_the_vocabulary_is_saved_with_the_run(cache: Path, source: str, file: str) -> None:
    experiment = Experiment().updated({**SMALL, "data.vocabulary": source})
    corpus = corpus_from_mapping(TEXTS)
    result = simulate(experiment, cache=cache, corpus=corpus, out="r")
    assert Path("r", file).exists()
    vocabulary = load_vocabulary(Path("r"))
    assert vocabulary.decode(vocabulary.encode("it begins so")) == "it begins so"
    assert len(vocabulary) == len(result.parameters["embedding"])
    assert result.summary.vocabulary_size == len(vocabulary)
    assert result.summary.vocabulary_source == source
    # A run with another kind of vocabulary does not leave the old one behind.
    other = experiment.updated({"data.vocabulary": "count" if source == "bpe" else "bpe"})
    simulate(other, cache=cache, corpus=corpus, out="r", overwrite=True)
    assert not Path("r", file).exists()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "format-samples/leaf_shakespeare",
            {
                "data.heldout_by": "sentences",
                "data.heldout_fraction": 0.3,
                "server.cohort_size": 2,
                "server.rounds": 15,
            },
        ),
        ("format-samples/stackoverflow.sqlite", {"server.cohort_size": 10, "server.rounds": 30}),
    ],
)
def test_the_samples_beat_their_unigram_loss(
    cache: Path, name: str, changes: dict[str, Any]
) -> None:
    # So little text needs few words and small steps.
    gentle = {
        "data.vocabulary_size": 200,
        "client.learning_rate": 0.5,
        "server.learning_rate": 0.003,
    }
    path = str(shared_file(name))
    experiment = Experiment().updated({"data.corpus": path, **gentle, **changes})
    summary = simulate(experiment, cache=cache).summary
    assert summary.unigram_loss
    assert summary.metric("loss") < summary.unigram_loss


@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_is_not_utf_8_shows_what_it_can(
    tmp_path: Path, cache: Path, encoding: str
) -> None:
    texts = {f"Дмитрий{k}": ["Müll 👍🏽 नमस्ते"] * 3 for k in range(12)}
    path = tmp_path / "Müll नमस्ते.jsonl"
    rows = [{"user": user, "text": text} for user, lines in texts.items() for text in lines]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    arguments = ["data", "describe", path.name, "--cache", str(cache), "--out", "facts"]
    done = subprocess.run(
        [sys.executable, "-m", "simulations.cli.main", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(encoding)
    assert b"M\\xfcll" in done.stdout or "Müll".encode("cp1252") in done.stdout


def _posts(path: Path) -> str:
    """Write 100 rows of 10 clients: 30 without a user, 30 without words, 10 with 40 words."""
    lines = []
    for k in range(100):
        text = "so it begins" if k % 10 else " ".join(["many"] * 40)
        user = None if k % 10 in {1, 2, 3} else f"u{k // 10}"
        text = "12345" if k % 10 in {4, 5, 6} else text
        lines.append(json.dumps({"user": user, "text": text}) + "\n")
    path.write_text("".join(lines))
    return str(path)


def test_what_is_not_used_is_said_and_kept_in_the_summary(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts = _posts(tmp_path / "posts.jsonl")
    settings = [f"{key}={value}" for key, value in {**SMALL, "data.corpus": posts}.items()]
    sets = [word for setting in settings for word in ("--set", setting)]
    commands = (
        ["data", "prepare", posts],
        ["data", "describe", posts],
        ["run", *sets, "--out", str(tmp_path / "run")],
    )
    expected = {"without a user": 30, "without words": 30}
    for command in commands:
        assert main([*command, "--json", "--cache", str(cache)]) == 0
        printed = capsys.readouterr()
        facts = json.loads(printed.out)
        assert (facts["rows"], facts["rows_left_out"]) == (100, expected)
        assert facts["words_cut"] == pytest.approx(200 / 490)
        assert "warning: posts.jsonl: 100 rows read, 40 used; left out (60.0 %)" in printed.err
        assert "40.8 % of the words are not used" in printed.err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rows_left_out"] == expected


def test_bad_rows_and_delimiters_are_settings(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["who!what", *(f"u{k}!so it begins" for k in range(9)), "cut"]
    (tmp_path / "posts.csv").write_text("\n".join(lines) + "\n")
    command = ["data", "prepare", "posts.csv", "--json", "--cache", str(cache)]
    columns = ["data.user_column=who", "data.text_column=what", "data.delimiter=!"]
    command += [word for column in columns for word in ("--set", column)]
    assert main(command) == 2
    assert "line 11: too few fields (1, the header has 2)" in capsys.readouterr().err
    assert main([*command, "--set", "data.bad_rows=skip"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["rows_left_out"] == {"with too few fields": 1}
    assert "1 with too few fields" in printed.err
