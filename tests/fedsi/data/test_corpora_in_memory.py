"""Corpora in memory contain the clients that they were made from."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from flwr_datasets.partitioner import IidPartitioner, NaturalIdPartitioner

from fedsi import UserError
from fedsi.data.corpora_in_memory import (
    corpus_from_dataset,
    corpus_from_mapping,
    corpus_from_partitioner,
)
from fedsi.data.corpus import Corpus, Row
from fedsi.data.prepare import prepare
from fedsi.experiment import DataSettings
from tests.fedsi.data.corpora import content_of
from tests.fedsi.data.formats.writers import TEXTS, flat

Clients = dict[str, list[str]]


def clients_of(corpus: Corpus) -> Clients:
    clients: Clients = {}
    for row in corpus.rows():
        clients.setdefault(row.client, []).append(row.text)
    assert list(corpus.rows()) == list(corpus.rows()), "a corpus can be read again"
    return clients


def dataset(rows: Any = None) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows or flat(TEXTS))


def partitioned(partitioner: Any, rows: Any = None) -> Any:
    partitioner.dataset = dataset(rows)
    return partitioner


def test_a_mapping_gives_its_clients() -> None:
    assert clients_of(corpus_from_mapping(TEXTS)) == TEXTS
    assert list(corpus_from_mapping({"a": ["x"]}).rows()) == [Row("a", "a", "x")]


def test_texts_may_come_from_a_generator_and_change_afterwards() -> None:
    texts: dict[str, list[str] | Iterator[str]] = {"a": iter(["x", "y"]), "b": ["z"]}
    corpus = corpus_from_mapping(texts)
    assert clients_of(corpus) == {"a": ["x", "y"], "b": ["z"]}
    texts["b"] = ["other"]
    assert clients_of(corpus) == {"a": ["x", "y"], "b": ["z"]}


def test_a_dataset_gives_its_clients() -> None:
    assert clients_of(corpus_from_dataset(dataset())) == TEXTS
    usual = dataset().rename_columns({"user": "client_id", "text": "snippets"})
    assert clients_of(corpus_from_dataset(usual)) == TEXTS
    named = dataset().rename_columns({"user": "who", "text": "what"})
    assert clients_of(corpus_from_dataset(named, "who", "what")) == TEXTS


def test_the_parts_of_a_dataset_dict_are_splits() -> None:
    parts = datasets.DatasetDict(
        train=dataset(), test=dataset([{"user": "dan", "text": "hello", "label": 3}])
    )
    rows = list(corpus_from_dataset(parts).rows())
    assert {row.split for row in rows if row.client in TEXTS} == {"train"}
    assert rows[-1] == Row("dan", "dan", "hello", "test", "3")


def test_a_natural_partitioner_gives_its_clients_under_numbers() -> None:
    corpus = corpus_from_partitioner(partitioned(NaturalIdPartitioner(partition_by="user")))
    clients = clients_of(corpus)
    assert sorted(clients) == ["0", "1", "2"]
    assert sorted(clients.values()) == sorted(TEXTS.values())


def test_an_iid_partitioner_deals_all_texts() -> None:
    corpus = corpus_from_partitioner(partitioned(IidPartitioner(num_partitions=3)))
    clients = clients_of(corpus)
    assert sorted(len(texts) for texts in clients.values()) == [2, 2, 3]
    texts = Counter(text for lines in clients.values() for text in lines)
    assert texts == Counter(text for lines in TEXTS.values() for text in lines)


def test_columns_that_a_partitioner_does_not_go_by_are_left_out_or_kept() -> None:
    rows = [
        {"client": f"old {k}", "text": f"text {k}", "label": k % 2, "split": "train"}
        for k in range(6)
    ]
    corpus = corpus_from_partitioner(partitioned(IidPartitioner(num_partitions=2), rows))
    found = list(corpus.rows())
    assert {row.client for row in found} == {"0", "1"}
    assert {(row.split, row.label) for row in found} == {("train", "0"), ("train", "1")}


MANY = {f"c{k}": [f"text of {'x' * (k + 1)}", "and more"] for k in range(6)}


def test_the_same_clients_are_prepared_from_all_kinds(tmp_path: Path) -> None:
    rows = flat(MANY)
    settings = DataSettings(heldout_by="clients", heldout_fraction=0.4)
    corpora = [
        corpus_from_mapping(MANY),
        corpus_from_dataset(dataset(rows)),
        corpus_from_partitioner(partitioned(NaturalIdPartitioner(partition_by="user"), rows)),
    ]
    folders = [prepare(settings, tmp_path, corpus=corpus) for corpus in corpora]
    assert len(set(folders)) == 3
    mapping, loaded, numbered = map(content_of, folders)
    assert mapping == loaded
    assert len(numbered.heldout) == 2
    beginnings = [
        sorted(text.count(" ") for lines in content.training.values() for text in lines)
        for content in (mapping, numbered)
    ]
    assert beginnings[0] == beginnings[1]


def test_the_hash_follows_the_name_and_every_value() -> None:
    base = {"a": ["x", "y"], "b": ["z"]}
    changed: list[dict[str, list[str]]] = [
        base,
        {"a": ["x", "y"], "c": ["z"]},
        {"a": ["x"], "b": ["y", "z"]},
        {"a": ["y", "x"], "b": ["z"]},
        {"a": ["xy"], "b": ["z"]},
        {"a": ["x", "y"], "b": ["\ud800"]},
    ]
    hashes = [corpus_from_mapping(texts).sha256 for texts in changed]
    assert len({*hashes, corpus_from_mapping(base, "name").sha256}) == len(changed) + 1
    assert corpus_from_mapping(dict(base)).sha256 == hashes[0]
    labelled = [{"user": "a", "text": "x", "label": label} for label in (0, 1)]
    one, other = (corpus_from_dataset(dataset([row])).sha256 for row in labelled)
    assert one != other


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({"a": "text"}, "client 'a' has one string, expected a list of strings"),
        ({"a": ["x", 3]}, "client 'a' has a int among its texts"),
        ({"a": [None]}, "client 'a' has a NoneType among its texts"),
        ({"a": b"text"}, "client 'a' has a int among its texts"),
        ({"a": 5}, "client 'a' has a int, expected a list of strings"),
        ({"a": None}, "client 'a' has a NoneType, expected a list of strings"),
    ],
)
def test_a_mapping_of_something_else_is_refused(texts: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        corpus_from_mapping(texts)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"who": "a", "text": "x"}], r"no column 'user' or .*columns there: text, who"),
        ([{"user": "a", "words": "x"}], r"no column 'text' or .*columns there: user, words"),
        ([{"user": "a", "text": [1, 2]}], "row 1: column 'text' holds a list of numbers"),
        ([{"user": ["a"], "text": "x"}], "column 'user' holds a list, expected text"),
        ([{"user": {"id": 1}, "text": "x"}], "column 'user' holds an object with 'id'; name"),
    ],
)
def test_a_dataset_of_something_else_is_refused(rows: list[Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        corpus_from_dataset(dataset(rows))


def test_a_partitioner_without_text_is_refused() -> None:
    rows = [{"image": k} for k in range(4)]
    with pytest.raises(UserError, match=r"no column 'text' or .*columns there: client, image"):
        corpus_from_partitioner(partitioned(IidPartitioner(num_partitions=2), rows))


def test_a_partitioner_that_fails_is_named() -> None:
    too_many = partitioned(IidPartitioner(num_partitions=5), flat(TEXTS)[:2])
    with pytest.raises(UserError, match="the IidPartitioner fails: Index 2 out of range"):
        corpus_from_partitioner(too_many)
    with pytest.raises(UserError, match="the IidPartitioner fails: The dataset field should be"):
        corpus_from_partitioner(IidPartitioner(num_partitions=2))


@pytest.mark.parametrize("key", [7, 7.0, np.int64(7), torch.tensor(7), b"7", "7"])
def test_ids_of_a_mapping_may_be_of_many_types(key: Any) -> None:
    assert clients_of(corpus_from_mapping({key: ["x"]})) == {"7": ["x"]}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({1: ["x"], "1": ["y"]}, "two clients are called '1'"),
        ({None: ["x"]}, "None is no client's id"),
        ({(1, 2): ["x"]}, "a client's id is a list, expected text"),
    ],
)
def test_ids_that_are_none_or_twice_are_refused(texts: Any, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        corpus_from_mapping(texts)


NUMBERED = [{"number": k % 3, "user": f"u{k % 3}", "text": f"text {k}"} for k in range(6)]


def _stream() -> Iterator[dict[str, Any]]:
    yield from NUMBERED


DATASETS: dict[str, tuple[Any, str]] = {
    "numpy": (dataset(NUMBERED).with_format("numpy"), "number"),
    "torch": (dataset(NUMBERED).with_format("torch"), "number"),
    "arrow": (dataset(NUMBERED).with_format("arrow"), "user"),
    "pandas": (dataset(NUMBERED).with_format("pandas"), "number"),
    "streamed": (dataset(NUMBERED).to_iterable_dataset(), "user"),
    "generated": (datasets.IterableDataset.from_generator(_stream), "user"),
    "shuffled": (dataset(NUMBERED).shuffle(seed=1), "number"),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets_of_every_kind_and_format(kind: str) -> None:
    made, user = DATASETS[kind]
    corpus = corpus_from_dataset(made, user_column=user)
    clients = {name.removeprefix("u"): sorted(texts) for name, texts in clients_of(corpus).items()}
    assert clients == {f"{k}": [f"text {k}", f"text {k + 3}"] for k in range(3)}


def test_columns_of_classes_are_named() -> None:
    classes = datasets.ClassLabel(names=["train", "test"])
    features = datasets.Features(
        {"user": datasets.Value("string"), "text": datasets.Value("string"), "split": classes}
    )
    rows = [{"user": "a", "text": "x", "split": k} for k in (0, 1)]
    made = datasets.Dataset.from_list(rows, features=features)
    assert [row.split for row in corpus_from_dataset(made).rows()] == ["train", "test"]


def test_rows_of_a_dataset_without_a_user_are_counted() -> None:
    corpus = corpus_from_dataset(dataset([{"user": u, "text": "x"} for u in ("a", None, "")]))
    for _ in range(2):
        assert [row.client for row in corpus.rows()] == ["a"]
        assert corpus.left_out.counts == {"without a user": 2}


@pytest.mark.parametrize("made", [NUMBERED, _stream(), None])
def test_what_is_no_dataset_is_named(made: Any) -> None:
    with pytest.raises(UserError, match=r"is no data set; pass a datasets.Dataset"):
        corpus_from_dataset(made)
