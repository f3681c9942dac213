"""Parts of a corpus that are not used are counted and reported."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi import UserError
from fedsi.data import repeated_sentences
from fedsi.data.corpus import Row
from fedsi.data.population import Description
from fedsi.data.repeated_sentences import Repeated, sentence_hashes
from fedsi.data.shortfall import shortfall
from tests.fedsi.data.corpora import built, content_of, letters, own_words, rows_of

ESSAY = " ".join(f"word{letters(k)}" for k in range(1, 21))


def described(tmp_path: Path, rows: Iterable[Row], **settings: Any) -> Description:
    return built(tmp_path / "store", rows, **settings).description


def essays(clients: int = 10) -> list[Row]:
    return rows_of({f"c{k}": [ESSAY] for k in range(clients)})


def test_nothing_is_said_of_a_corpus_that_is_used_whole(tmp_path: Path) -> None:
    description = described(tmp_path, rows_of(own_words(10)))
    assert (description.rows, description.rows_left_out) == (20, {})
    assert shortfall(description) == []


def test_rows_without_text_and_without_words_are_counted_apart(tmp_path: Path) -> None:
    rows = rows_of(own_words(10)) + [Row("c1", "c1", text) for text in (" ", "", "1234 !", "99")]
    description = described(tmp_path, rows)
    assert description.rows == 24
    assert description.rows_left_out == {"without text": 2, "without words": 2}
    (said,) = shortfall(description)
    assert said.startswith("warning: test: 24 rows read, 20 used; left out (16.7 %)")
    assert "2 without text, 2 without words" in said


def test_few_rows_left_out_are_no_warning(tmp_path: Path) -> None:
    (said,) = shortfall(described(tmp_path, [*rows_of(own_words(50)), Row("c1", "c1", "123")]))
    assert said == "test: 101 rows read, 100 used; left out (1.0 %): 1 without words"


def test_rows_of_other_splits_are_not_counted(tmp_path: Path) -> None:
    train = [row._replace(split="train") for row in rows_of(own_words(10))]
    description = described(tmp_path, [*train, Row("x", "x", "1", "test")], split="train")
    assert (description.rows, description.rows_left_out) == (20, {})


def test_a_corpus_of_which_nothing_is_usable_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"2 row\(s\) read, all left out \(2 without words\)"):
        described(tmp_path, [Row("a", "a", "12"), Row("b", "b", "--")])


def test_a_vocabulary_without_the_corpus_s_words_is_told(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("wordb\nandere\nwörter\n")
    description = described(tmp_path, essays(), vocabulary=str(words), sequence_length=20)
    assert description.unknown_words == pytest.approx(19 / 20)
    (sentence,) = (s for s in shortfall(description) if "vocabulary" in s)
    assert sentence.startswith("warning: test: 95 % of the words to train on are not in the vocabu")
    assert described(tmp_path / "counted", essays(), sequence_length=20).unknown_words == 0


def test_words_beyond_the_sequence_length_are_counted(tmp_path: Path) -> None:
    description = described(tmp_path, essays())
    assert description.words_cut == pytest.approx(12 / 20)
    (known, words) = sorted(shortfall(description), key=lambda said: "words are" in said)
    assert "warning: test: 60.0 % of the words are not used" in words
    assert "data.long_texts=split" in words
    assert "held-out" in known


@pytest.mark.parametrize(("length", "lengths"), [(8, [8, 8, 4]), (10, [10, 10]), (20, [20])])
def test_long_texts_may_be_split_into_sequences(
    tmp_path: Path, length: int, lengths: list[int]
) -> None:
    description = described(tmp_path, essays(), long_texts="split", sequence_length=length)
    assert description.words_cut == 0
    assert description.training_examples + description.heldout_examples == 10 * len(lengths)
    content = content_of(tmp_path / "store")
    for sentences in content.training.values():
        assert [len(sentence.split()) for sentence in sentences] == lengths
        assert " ".join(sentences) == ESSAY


def test_short_texts_are_the_same_cut_or_split(tmp_path: Path) -> None:
    rows = rows_of(own_words(10))
    for way in ("cut", "split"):
        built(tmp_path / way, rows, long_texts=way)
    for name in ("tokens.npy", "sentence_starts.npy", "client_starts.npy", "unigram.npy"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "split" / name).read_bytes()


def test_a_split_text_is_on_one_side(tmp_path: Path) -> None:
    texts = {
        f"c{k}": [f"{ESSAY} own{letters(k)} number{letters(n)}" for n in range(9)] for k in range(4)
    }
    settings = {"heldout_by": "sentences", "long_texts": "split"}
    description = described(tmp_path, rows_of(texts), **settings)
    assert description.training_examples % 3 == description.heldout_examples % 3 == 0


def test_a_test_split_that_is_the_training_split_is_told(tmp_path: Path) -> None:
    rows = [row._replace(split=s) for s in ("train", "test") for row in rows_of(own_words(10))]
    description = described(tmp_path, rows, split="train", heldout_split="test")
    assert description.heldout_in_training == 1
    (said,) = shortfall(description)
    assert "100.0 % of the held-out sentences are also training sentences" in said


def test_held_out_sentences_differ_if_any_word_or_its_place_does(tmp_path: Path) -> None:
    # All of these words are unknown, so as tokens the sentences are the same.
    settings = {"vocabulary_size": 1, "split": "train", "heldout_split": "test"}
    train = ["a b c", "d e f", "so so so so"]
    test = ["a b c", "a c b", "d e", "d e g"]
    rows = [Row("x", "x", text, "train") for text in train]
    rows += [Row("y", "y", text, "test") for text in test]
    assert described(tmp_path, rows, **settings).heldout_in_training == 1 / 4


def test_of_many_sentences_an_equal_share_of_both_sides_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeated_sentences, "MOST_SENTENCES", 2000)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**20, 30_000, dtype=np.int32)
    lengths = np.full(10_000, 3)
    found = Repeated(20_000)
    found.add(words, lengths, np.zeros(10_000, dtype=bool))
    words[: 3 * 4000] += 2**20
    found.add(words, lengths, np.ones(10_000, dtype=bool))
    # About 1,000 held-out sentences are compared: a standard error of .015.
    assert found.share() == pytest.approx(0.6, abs=0.06)
    assert sum(map(len, found._sides[True])) == pytest.approx(1000, abs=120)


def test_hashes_of_different_sentences_differ() -> None:
    words = np.arange(300_000, dtype=np.int32) // 3
    assert len(np.unique(sentence_hashes(words, np.full(100_000, 3)))) == 100_000


@pytest.mark.parametrize("concentration", [1e-6, 0.01, 0.1])
def test_clients_that_a_partition_dealt_nothing_are_counted(
    tmp_path: Path, concentration: float
) -> None:
    settings = {"partition": "dirichlet", "partition_clients": 200}
    settings |= {"partition_concentration": concentration}
    description = described(tmp_path, rows_of(own_words(10)), **settings)
    empty = description.clients_without_examples
    assert description.training_clients + empty == 200
    said = shortfall(description)[-1]
    assert said.startswith(f"warning: test: {empty} of 200 clients (without the held-out ones) got")


def test_clients_of_whom_no_row_is_used_are_counted(tmp_path: Path) -> None:
    rows = rows_of(own_words(10) | {"x": ["123", ""], "y": ["!"]})
    description = described(tmp_path, [*rows, Row("c1", "c1", "45")])
    assert description.clients_without_examples == 2
    assert sum(description.rows_left_out.values()) == 4
