"""Held-out clients and sentences, none of whose data get into training."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.data.corpus import Row, silent
from fedsi.data.ingest import held_out, read_rows, survey
from fedsi.data.protocol import PAD
from fedsi.data.spool import Spool
from fedsi.data.subwords import SubwordVocabulary
from fedsi.data.token_store import StoredPopulation
from fedsi.data.vocabulary import WordVocabulary
from fedsi.experiment import DataSettings
from tests.fedsi.data.corpora import (
    SMALL,
    Content,
    built,
    content_of,
    corpus,
    letters,
    own_words,
    rows_of,
)

OOV = "<oov>"


def check_nothing_leaks(folder: Path) -> Content:
    """The vocabulary is the training part's words, and the unigram model its counts."""
    population = StoredPopulation(folder)
    content = content_of(folder)
    vocabulary = population.vocabulary()
    assert isinstance(vocabulary, WordVocabulary)
    assert set(vocabulary.words) == words_of(content.training.values())
    first = population.description.training_clients
    targets = np.concatenate([population.examples(k)[:, 1:].ravel() for k in range(first)])
    counts = np.bincount(targets[targets != PAD], minlength=len(vocabulary))
    expected = (counts[2:] + 1) / (counts[2:] + 1).sum()
    np.testing.assert_allclose(np.exp(population.unigram_log_probabilities[2:]), expected)
    assert population.description.training_examples == sum(map(len, content.training.values()))
    assert population.description.heldout_examples == sum(map(len, content.heldout.values()))
    return content


def words_of(clients: Iterable[list[str]]) -> set[str]:
    return {word for sentences in clients for sentence in sentences for word in sentence.split()}


@pytest.mark.parametrize("vocabulary", ["count", "users"])
def test_held_out_clients_reach_neither_training_nor_vocabulary(
    tmp_path: Path, vocabulary: str
) -> None:
    texts = own_words(60)
    built(tmp_path / "p", rows_of(texts), heldout_by="clients", vocabulary=vocabulary)
    content = check_nothing_leaks(tmp_path / "p")
    assert len(content.heldout) == 18
    assert set(content.training) | set(content.heldout) == set(texts)
    assert content.training == {name: texts[name] for name in content.training}
    assert all(
        sentences == [f"{OOV} shared", f"shared {OOV}"] for sentences in content.heldout.values()
    )


def grouped_rows(separator: bool) -> list[Row]:
    """Return 40 clients in 10 groups; each group has a word that no other has."""
    return [
        Row(
            f"play{k % 10}/speaker{k}" if separator else f"c{k}",
            f"c{k}" if separator else f"g{k % 10}",
            f"own{letters(k % 10)} shared",
        )
        for k in range(40)
    ]


@pytest.mark.parametrize("separator", [False, True])
def test_groups_are_held_out_whole(tmp_path: Path, separator: bool) -> None:
    rows = grouped_rows(separator)
    group_of = {row.client: row.client.split("/")[0] if separator else row.group for row in rows}
    options: dict[str, Any] = {"group_separator": "/"} if separator else {}
    built(tmp_path / "p", rows, **options)
    content = check_nothing_leaks(tmp_path / "p")
    assert len(content.heldout) == 12
    training = {group_of[name] for name in content.training}
    heldout = {group_of[name] for name in content.heldout}
    assert (len(training), len(heldout)) == (7, 3)
    assert not training & heldout
    assert words_of(content.heldout.values()) == {OOV, "shared"}


def test_groups_are_not_heeded_where_clients_are_held_out(tmp_path: Path) -> None:
    rows = grouped_rows(separator=False)
    built(tmp_path / "p", rows, heldout_by="clients")
    content = check_nothing_leaks(tmp_path / "p")
    assert len(content.heldout) == 12
    groups = {row.client: row.group for row in rows}
    assert {groups[c] for c in content.training} & {groups[c] for c in content.heldout}


def test_clients_are_held_out_where_there_is_one_group(tmp_path: Path) -> None:
    rows = [Row(f"c{k}", "all", f"own{letters(k)}") for k in range(10)]
    built(tmp_path / "p", rows)
    assert len(check_nothing_leaks(tmp_path / "p").heldout) == 3


def test_the_group_of_a_client_is_that_of_its_first_row(tmp_path: Path) -> None:
    rows = [
        Row(f"c{k}", f"g{(k + n) % 5}", f"own{letters(k)}") for n in range(2) for k in range(10)
    ]
    built(tmp_path / "p", rows, heldout_fraction=0.2)
    first, second = sorted(check_nothing_leaks(tmp_path / "p").heldout)
    assert int(second[1:]) - int(first[1:]) == 5


def test_duplicates_of_a_sentence_of_a_client_are_on_one_side(tmp_path: Path) -> None:
    texts = {
        f"c{k}": [f"own{letters(k)} line{letters(n)}" for _ in range(3) for n in range(20)]
        for k in range(15)
    }
    built(tmp_path / "p", rows_of(texts), heldout_by="sentences")
    content = check_nothing_leaks(tmp_path / "p")
    for client, lines in texts.items():
        kept = Counter(content.training[client])
        assert kept == {line: 3 for line in lines if line in kept}
        assert len(content.heldout[client]) == 60 - kept.total()
    heldout = sum(map(len, content.heldout.values()))
    # 300 different sentences, three times each; four standard deviations.
    assert abs(heldout / 900 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 300)


def test_a_word_of_held_out_sentences_alone_is_not_in_the_vocabulary(tmp_path: Path) -> None:
    texts = {f"c{k}": [f"word{letters(20 * k + n)}" for n in range(20)] for k in range(5)}
    built(tmp_path / "p", rows_of(texts), heldout_by="sentences")
    content = check_nothing_leaks(tmp_path / "p")
    assert words_of(content.heldout.values()) == {OOV}
    for client, lines in texts.items():
        assert set(content.training[client]) < set(lines)


SPLITS = [
    Row("ann", "ann", "ann train", split="train"),
    Row("bob", "bob", "bob train", split="train"),
    Row("cat", "cat", "cat train", split="train"),
    Row("ann", "ann", "ann test", split="test"),
    Row("dan", "dan", "dan test", split="test"),
    Row("bob", "bob", "bob dev", split="dev"),
    Row("eve", "eve", "eve dev", split="dev"),
    Row("fay", "fay", "fay", split=""),
]


def test_the_corpus_s_own_split_is_held_out(tmp_path: Path) -> None:
    population = built(tmp_path / "p", SPLITS, heldout_split="test")
    content = check_nothing_leaks(tmp_path / "p")
    assert content.training == {
        "ann": ["ann train"],
        "bob": ["bob train", "bob dev"],
        "cat": ["cat train"],
        "eve": ["eve dev"],
        "fay": ["fay"],
    }
    assert content.heldout == {"ann": [f"ann {OOV}"], "dan": [f"{OOV} {OOV}"]}
    # A client of both splits is two clients; by its id the one in training is found.
    assert population.find(["ann"]).tolist() == [0]


def test_of_two_splits_one_is_trained_on_and_the_rest_left_out(tmp_path: Path) -> None:
    built(tmp_path / "p", SPLITS, split="train", heldout_split="dev")
    content = check_nothing_leaks(tmp_path / "p")
    assert content.training == {c: [f"{c} train"] for c in ("ann", "bob", "cat")}
    assert content.heldout == {"bob": [f"bob {OOV}"], "eve": [f"{OOV} {OOV}"]}


@pytest.mark.parametrize("by", ["clients", "groups", "sentences"])
def test_one_split_alone_is_read_and_held_out_from(tmp_path: Path, by: str) -> None:
    rows = [
        Row(f"c{k}", f"g{k % 7}", f"own{letters(k)} {split}", split=split)
        for k in range(30)
        for split in ("train", "test")
    ]
    built(tmp_path / "p", rows, split="train", heldout_by=by)
    content = check_nothing_leaks(tmp_path / "p")
    assert len(content.training) + len(content.heldout) == 30
    assert "train" in words_of(content.training.values())
    both = [*content.training.values(), *content.heldout.values()]
    assert all(len(sentences) == 1 and sentences[0].endswith(" train") for sentences in both)


@pytest.mark.parametrize("vocabulary", ["count", "bpe"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"split": "tran"}, r"no split 'tran'; splits there: dev, test, train; choose"),
        ({"heldout_split": "tset"}, r"no split 'tset'; splits there: dev, test, train; choose"),
        ({"split": "train", "heldout_split": "x"}, "no split 'x'"),
    ],
)
def test_a_split_that_is_not_there(
    tmp_path: Path, vocabulary: str, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        built(tmp_path / "p", SPLITS, vocabulary=vocabulary, **settings)
    with pytest.raises(UserError, match="splits there: none"):
        built(tmp_path / "p", rows_of(own_words(3)), vocabulary=vocabulary, **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        (
            [Row("a", "a", "hi", "test"), Row("a", "a", "?!", "train")],
            {"heldout_split": "test"},
            "has no text to train on beside its split 'test'",
        ),
        (
            [Row("a", "a", "hi", "train"), Row("a", "a", "?!", "test")],
            {"heldout_split": "test"},
            "has no text .* its split 'test'",
        ),
        (rows_of({"a": ["hi"]}), {"heldout_by": "sentences"}, "no sentence to train on, or none"),
        (rows_of({"a": ["hi", "ho"]}), {"heldout_by": "clients"}, r"one client with text"),
    ],
)
def test_an_empty_side_is_refused(
    tmp_path: Path, rows: list[Row], settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        built(tmp_path / "p", rows, **settings)


ODD_TEXTS = st.sampled_from(["", " ", "\t\n", "\u2003", "\x1c", "\0", "\ud800", "a b", "\u200b"])


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), ODD_TEXTS), min_size=1, max_size=20),
    st.sampled_from(["clients", "sentences"]),
)
def test_those_held_out_from_byte_pairs_are_those_held_out_from_training(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], by: str
) -> None:
    texts = corpus(Row(client, client, text) for client, text in pairs)
    data = DataSettings(**SMALL | {"heldout_by": by})
    surveyed = survey(texts, data)
    folder = tmp_path_factory.mktemp("spool")
    encoder = SubwordVocabulary.trained(iter(["some text"]), 300)
    try:
        with Spool(folder) as spool:
            read = read_rows(texts, data, encoder, spool, silent)
    except UserError:
        assert surveyed.names == []
    else:
        assert (surveyed.names, surveyed.heldout) == (read.names, read.heldout)
        assert held_out(surveyed, data) == held_out(read, data)


def test_a_label_that_no_row_has_is_refused(tmp_path: Path) -> None:
    rows = [Row(f"c{k}", f"c{k}", f"word{k} and more", label=str(k % 2)) for k in range(8)]
    dealt: dict[str, Any] = {
        "partition": "dirichlet", "label_column": "topic", "partition_clients": 3,
    }  # fmt: skip
    assert built(tmp_path / "labelled", rows, **dealt)
    bare = [row._replace(label="") for row in rows]
    with pytest.raises(UserError, match=r"no row of the corpus .* has a label in the column 'topi"):
        built(tmp_path / "bare", bare, **dealt)


def test_an_empty_corpus_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty: there is no row to read"):
        built(tmp_path, [])
