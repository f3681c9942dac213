"""Settings share a built population exactly if they give the same one."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from fedsi import UserError
from fedsi.checksums import Checksums
from fedsi.data import synthetic
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import DataSettings

CHANGES: dict[str, Any] = {
    "format": "jsonl",
    "user_column": "user",
    "text_column": "text",
    "delimiter": ",",
    "bad_rows": "skip",
    "label_column": "label",
    "split": "train",
    "heldout_split": "test",
    "heldout_by": "sentences",
    "heldout_fraction": 0.4,
    "group_separator": "/",
    "words": "spaces",
    "vocabulary": "users",
    "vocabulary_size": 7,
    "sequence_length": 6,
    "long_texts": "split",
    "max_examples_per_client": 3,
    "partition": "iid",
    "partition_clients": 3,
    "partition_concentration": 0.7,
    "partition_exponent": 1.5,
    "population": 20,
    "population_seed": 5,
    "topic_concentration": 0.9,
    "median_examples": 7,
    "examples_sigma": 0.1,
}
"""Another value of every setting but the corpus."""

OF_ROUNDS = {"max_examples_per_client"}
OF_SYNTHETIC_CLIENTS = {"population", "topic_concentration", "median_examples", "examples_sigma"}
OF_BOTH_KINDS = {"heldout_fraction", "vocabulary_size", "sequence_length", "population_seed"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    lines = [
        f'{{"user": "u/{k}", "text": "a b c", "split": "{split}"}}\n'
        for k in range(10)
        for split in ("train", "test")
    ]
    (tmp_path / "c.jsonl").write_text("".join(lines))
    return tmp_path / "c.jsonl"


OF_FILES = {"format", "user_column", "text_column", "delimiter", "bad_rows"}


@pytest.mark.parametrize("name", sorted(OF_FILES))
@pytest.mark.parametrize("corpus", ["synthetic", "pydocs"])
def test_what_only_files_have_is_refused(corpus: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"data.{name} has no effect with data.corpus={corpus}"):
        DataSettings(corpus=corpus, **{name: CHANGES[name]})


def test_every_setting_is_tried() -> None:
    assert {*CHANGES, "corpus"} == set(DataSettings.model_fields)


@pytest.mark.parametrize("name", CHANGES)
def test_a_stored_population_is_built_anew_where_a_setting_matters(path: Path, name: str) -> None:
    cache = path.parent / "cache"
    base = prepare(DataSettings(corpus=str(path)), cache)
    changed = prepare(DataSettings(corpus=str(path), **{name: CHANGES[name]}), cache)
    assert (changed == base) == (name in OF_ROUNDS | OF_SYNTHETIC_CLIENTS)
    open_population(changed)


@pytest.mark.parametrize("name", [name for name in CHANGES if name not in OF_FILES])
def test_a_synthetic_population_is_made_anew_where_a_setting_matters(
    tmp_path: Path, name: str
) -> None:
    options: dict[str, Any] = {"corpus": "synthetic", "population": 10, "vocabulary_size": 50}
    base = prepare(DataSettings(**options), tmp_path)
    changed = prepare(DataSettings(**options | {name: CHANGES[name]}), tmp_path)
    assert (changed != base) == (name in OF_SYNTHETIC_CLIENTS | OF_BOTH_KINDS)
    one, other = open_population(base), open_population(changed)
    assert (changed != base) == (one.description != other.description)


def test_the_content_of_a_word_list_counts(path: Path, tmp_path: Path) -> None:
    listed = tmp_path / "words"
    listed.write_text("a\nb\n")
    settings = DataSettings(corpus=str(path), vocabulary=str(listed))
    first = prepare(settings, tmp_path / "cache")
    assert prepare(settings, tmp_path / "cache") == first
    listed.write_text("b\na\n")
    second = prepare(settings, tmp_path / "cache")
    assert second != first
    texts = [open_population(folder).vocabulary().decode([4, 5]) for folder in (first, second)]
    assert texts == ["a b", "b a"]


def test_the_content_and_the_name_of_a_corpus_count_but_not_its_place(path: Path) -> None:
    cache = path.parent / "cache"

    def prepared(corpus: Path) -> Path:
        return prepare(DataSettings(corpus=str(corpus)), cache)

    first = prepared(path)
    (path.parent / "elsewhere").mkdir()
    moved = path.rename(path.parent / "elsewhere" / path.name)
    assert prepared(moved) == first
    renamed = moved.rename(moved.with_name("d.jsonl"))
    assert prepared(renamed) != first
    renamed.write_text(renamed.read_text().replace("a b c", "a b d"))
    assert len({first, prepared(renamed), prepared(renamed.rename(path))}) == 3


def test_a_population_is_built_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, cache = DataSettings(corpus=str(path)), path.parent / "cache"
    folder = prepare(settings, cache)

    def never(*_arguments: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("fedsi.data.prepare.build_store", never)
    assert prepare(settings, cache) == folder


def test_a_synthetic_population_is_the_one_of_its_settings(tmp_path: Path) -> None:
    settings = DataSettings(corpus="synthetic", population=10, vocabulary_size=50)
    opened, made = open_population(prepare(settings, tmp_path)), synthetic.make_synthetic(settings)
    assert opened.description == made.description
    for client in range(10):
        assert opened.examples(client).tolist() == made.examples(client).tolist()
    with pytest.raises(UserError, match="population = 1 is not allowed"):
        prepare(DataSettings(corpus="synthetic", population=1), tmp_path)


@pytest.mark.parametrize("corpus", ["path", "synthetic"])
def test_a_cache_that_cannot_be_made_is_named(path: Path, corpus: str) -> None:
    settings = DataSettings(corpus=str(path) if corpus == "path" else corpus)
    with pytest.raises(UserError, match=r"cannot write .*c.jsonl"):
        prepare(settings, path / "cache")


def test_a_population_of_an_unknown_kind_is_refused(path: Path) -> None:
    folder = prepare(DataSettings(corpus=str(path)), path.parent / "cache")
    meta = folder / "meta.json"
    meta.write_text(meta.read_text().replace('"kind": "store"', '"kind": "other"'))
    sha256 = hashlib.sha256(meta.read_bytes()).hexdigest()
    Checksums.read(folder, "").with_whole({meta.name: sha256}).write(folder)
    with pytest.raises(UserError, match="of the unknown kind 'other'"):
        open_population(folder)
