"""Texts that people write come with and without byte order marks."""

import json
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.data.formats.opening import open_corpus
from fedsi.data.subwords import SubwordVocabulary
from fedsi.files import read_text

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]


def written(path: Path, text: str, encoding: str) -> Path:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + text).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_the_same_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    assert read_text(written(tmp_path / "t", "née\r\n\n", encoding)) == "née\n\n"
    assert read_text(written(tmp_path / "t", "", encoding)) == ""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_experiment_is_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    text = '[data]\r\ncorpus = "Müll.csv"\r\n'
    assert (
        Experiment.from_file(written(tmp_path / "e.toml", text, encoding)).data.corpus == "Müll.csv"
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "folder", "c.json"])
def test_a_corpus_is_read_in_every_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    user = {"x": ["née"], "y": [""]}
    texts = {
        "c.csv": "user,text\r\nann,née\r\n",
        "c.jsonl": '{"user": "ann", "text": "née"}\r\n',
        "c.json": json.dumps({"users": ["ann"], "user_data": {"ann": user}}, ensure_ascii=False),
        "folder": "née\r\n",
    }
    if name == "folder":  # of two parts, each with its own mark
        (tmp_path / name).mkdir()
        written(tmp_path / name / "ann.txt", texts[name], encoding)
        written(tmp_path / name / "bob.txt", texts[name], encoding)
    else:
        written(tmp_path / name, texts[name], encoding)
    rows = [(row.client, row.text.strip()) for row in open_corpus(tmp_path / name).rows()]
    assert rows == [("ann", "née"), ("bob", "née")][: len(rows)]
    assert rows


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_tokenizer_is_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    trained = SubwordVocabulary.trained(iter(["the cat"] * 9), 258)
    path = written(tmp_path / "t.json", trained.file_text(), encoding)
    assert SubwordVocabulary.from_file(path).encode("cat") == trained.encode("cat")


def test_a_name_that_is_no_text_is_refused() -> None:
    # Python's form of a file name's bytes that are invalid in the system's encoding.
    with pytest.raises(UserError, match=r"data.corpus = .* is not allowed: .*unicode"):
        Experiment(data={"corpus": "M\udcfcll.csv"})
