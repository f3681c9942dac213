import json
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.data.batches import training_batches
from fedsi.data.build_store import build_store
from fedsi.data.corpus import Corpus, Row, silent
from fedsi.data.population import FORMAT, ClientExamples, Population
from fedsi.data.prepare import open_population, prepare
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, OOV, PAD
from fedsi.data.token_store import StoredPopulation
from fedsi.data.words import split_words
from fedsi.experiment import ClientSettings, DataSettings
from tests.conftest import shared_file
from tests.fedsi.data.corpora import built, rows_of

WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon"])
TEXTS = st.lists(WORDS, max_size=7).map(" ".join)


def corpus_of(texts: dict[str, list[str]]) -> Corpus:
    rows = [Row(client, client, text) for client, lines in texts.items() for text in lines]
    return Corpus("test", "0" * 64, lambda: iter(rows))


def build(texts: dict[str, list[str]], folder: Path, vocabulary: int = 3) -> Population:
    settings = DataSettings(vocabulary_size=vocabulary, sequence_length=4, heldout_fraction=0.3)
    build_store(corpus_of(texts), folder, settings, silent)
    return open_population(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.dictionaries(
        st.text("abcxyz", min_size=1, max_size=3),
        st.lists(TEXTS.filter(bool), min_size=1, max_size=5),
        min_size=2,
        max_size=8,
    )
)
def test_every_client_comes_back(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("store") / "population"
    population = build(texts, folder)
    description = population.description
    vocabulary = (folder / "vocabulary.txt").read_text().splitlines()[1:]
    clients = description.training_clients + description.heldout_clients

    def decode(row: list[int]) -> list[str]:
        assert row[0] == BOS
        kept = [token for token in row[1:] if token not in (PAD, EOS)]
        assert (EOS in row) == (len(kept) < 4)
        return ["?" if t == OOV else vocabulary[t - FIRST_WORD] for t in kept]

    for client in range(clients):
        examples = population.examples(client)
        targets = int((examples[:, 1:] != PAD).sum())
        assert targets <= population.work(client, None) <= targets + len(examples)
        assert population.work(client, 1) == population.work(client, None) // len(examples)
    stored = [[decode(r) for r in population.examples(k).tolist()] for k in range(clients)]
    expected = [
        [[w if w in vocabulary else "?" for w in split_words(t, "letters")[:4]] for t in lines]
        for lines in texts.values()
    ]
    assert sorted(stored) == sorted(expected)
    with pytest.raises(IndexError):
        population.examples(clients)


def test_a_client_is_found_by_its_id(tmp_path: Path) -> None:
    # Each client's only sentence is as long as its number, and its id is not its index.
    texts = {f"ü {k}": [" ".join(["word"] * k)] for k in range(1, 5)}
    population = build(texts, tmp_path / "p")
    names = [*texts, "ü 5", ""]
    found = population.find(names).tolist()
    assert found[-2:] == [-1, -1]
    for name, client in zip(texts, found, strict=False):
        assert (population.examples(client)[0] >= FIRST_WORD).sum() == int(name.split()[1])
    (tmp_path / "p" / "client_names.json").write_text("[")
    with pytest.raises(UserError, match="damaged"):
        StoredPopulation(tmp_path / "p").find(names)


def test_nothing_of_a_held_out_client_reaches_the_vocabulary(tmp_path: Path) -> None:
    # Every client has a unique word, so each word in the vocabulary identifies its client.
    numbers = {f"c{k}": "".join(chr(97 + int(d)) for d in f"{k:03}") for k in range(60)}
    texts = {client: [f"own{letters} shared"] for client, letters in numbers.items()}
    population = build(texts, tmp_path / "p", vocabulary=1000)
    known = set((tmp_path / "p" / "vocabulary.txt").read_text().splitlines()[1:]) - {"shared"}
    first = population.description.training_clients
    assert len(known) == first == 42
    for client in range(60):
        own = population.examples(client)[0, 1]
        assert (own == OOV) == (client >= first)


def test_unigram_loss_by_hand(tmp_path: Path) -> None:
    # 10 clients "a b": 7 train, 3 are held out. Targets of each: a, b, eos.
    population = build({f"c{k}": ["a b"] for k in range(10)}, tmp_path / "p")
    # Counts 7 each over eos, oov, a, b with one added: 8, 1, 8, 8 of 25.
    assert population.description.unigram_loss == pytest.approx(-np.log(8 / 25))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ({}, r"is empty: there is no row to read"),
        ({"a": ["", "12 !"]}, r"no usable client: 2 row\(s\) read, all left out"),
        ({"a": ["one"]}, r"has one client with text; at least 2"),
    ],
)
def test_a_corpus_without_usable_clients(
    tmp_path: Path, texts: dict[str, list[str]], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        build(texts, tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield Row("a", "a", "some text")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(Corpus("test", "0" * 64, rows), tmp_path / "p", DataSettings(), silent)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_version_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    texts = {f"c{k}": ["a b"] for k in range(10)}
    build(texts, tmp_path / "p")
    tokens = tmp_path / "p" / "tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged"):
        StoredPopulation(tmp_path / "p")
    meta = tmp_path / "p" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 0}))
    with pytest.raises(UserError, match=f"has format 0, expected {FORMAT}"):
        open_population(tmp_path / "p")
    meta.write_text("{")
    with pytest.raises(UserError, match="holds no population"):
        open_population(tmp_path / "p")


HALVES = [
    "meta.json",
    "vocabulary.txt",
    "client_names.json",
    "unigram.npy",
    "tokens.npy",
    "sentence_starts.npy",
    "client_starts.npy",
    "checksums.json",
]
"""Files that a population cannot do without."""


def read_everything(folder: Path) -> None:
    population = open_population(folder)
    description = population.description
    for client in range(description.training_clients + description.heldout_clients):
        population.examples(client)
    assert len(population.vocabulary()) == description.vocabulary_size
    population.find(["c0"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "p"
    build({f"c{k}": ["alpha beta gamma", "delta alpha"] for k in range(10)}, folder, 50)
    read_everything(folder)
    return folder


def test_these_are_all_files_but_one_for_statistics(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {*HALVES, "client_words.npy"}


@pytest.mark.parametrize("name", HALVES)
def test_a_store_without_one_of_its_files_is_refused(
    tmp_path: Path, whole: Path, name: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "p")
    (folder / name).unlink()
    with pytest.raises(UserError, match=re.escape(str(folder))):
        read_everything(folder)


@pytest.mark.parametrize("name", HALVES)
def test_a_store_with_a_truncated_file_is_refused(tmp_path: Path, whole: Path, name: str) -> None:
    folder = shutil.copytree(whole, tmp_path / "p")
    content = (whole / name).read_bytes()
    end = len(content.rstrip(b"\n")) if name == "checksums.json" else len(content)
    for size in {*range(0, end, 5), end - 1}:
        (folder / name).write_bytes(content[:size])
        with pytest.raises(UserError, match=re.escape(str(folder))):
            read_everything(folder)


def test_no_flipped_byte_of_a_store_is_accepted(tmp_path: Path, whole: Path) -> None:
    """White space in a JSON file is not read, so it may change."""
    folder = shutil.copytree(whole, tmp_path / "p")
    rng = np.random.default_rng(0)
    for name in HALVES:
        sound = (whole / name).read_bytes()
        for place in rng.integers(len(sound), size=30).tolist():
            content = bytearray(sound)
            content[place] ^= int(rng.integers(1, 256))
            (folder / name).write_bytes(content)
            try:
                read_everything(folder)
            except UserError as error:
                assert str(folder) in str(error)  # noqa: PT017
                assert "remove the folder" in str(error)  # noqa: PT017
            else:
                assert name == "checksums.json"
                assert sound[place : place + 1].isspace()
        (folder / name).write_bytes(sound)


@pytest.mark.parametrize("name", ["flat.csv", "flat.jsonl"])
def test_the_format_samples_hold_twelve_clients(cache: Path, name: str) -> None:
    settings = DataSettings(corpus=str(shared_file(f"format-samples/{name}")))
    description = open_population(prepare(settings, cache)).description
    assert description.training_clients + description.heldout_clients == 12
    assert description.training_examples + description.heldout_examples == 182


def test_preparing_again_finds_the_same_folder(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"user": "u{k}", "text": "a b c"}}\n' for k in range(5)))
    settings = DataSettings(corpus=str(path))
    first = prepare(settings, tmp_path / "cache")
    built = (first / "tokens.npy").stat().st_mtime_ns
    assert prepare(settings, tmp_path / "cache") == first
    assert (first / "tokens.npy").stat().st_mtime_ns == built
    path.write_text(path.read_text() + '{"user": "v", "text": "d"}\n')
    assert prepare(settings, tmp_path / "cache") != first


@given(st.data())
def test_some_examples_are_the_rows_of_all(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    texts = {f"c{k}": ["one", "two three four five", "six seven"] * k for k in range(1, 5)}
    folder = tmp_path_factory.getbasetemp() / "some-examples"
    population = StoredPopulation(folder) if folder.exists() else built(folder, rows_of(texts))
    client = data.draw(st.integers(0, 3))
    count = population.count(client)
    places = np.array(data.draw(st.lists(st.integers(0, count - 1), max_size=9)), np.int64)
    everything = population.examples(client)
    assert len(everything) == count
    assert np.array_equal(population.examples(client, places), everything[places])


def test_some_examples_of_a_client_cost_no_memory_for_the_others(tmp_path: Path) -> None:
    many = {"huge": ["one two three"] * 20_000, "other": ["one"], "third": ["two"]}
    population = built(tmp_path / "p", rows_of(many), sequence_length=2_000)
    client = next(k for k in range(3) if population.count(k) == 20_000)
    tracemalloc.start()
    batches = list(
        training_batches(
            ClientExamples(population, client, 1), ClientSettings(), 16,
            seed=0, round_number=1, client=client,
        )
    )  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(map(len, batches)) == 16
    assert peak < 4_000_000  # all of them take 160 MB
