"""Stores against a slow reference in memory, and unusual texts of all kinds."""

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.data import build_store, chosen_words, ingest, spool
from fedsi.data.corpus import Row
from fedsi.data.population import read_meta
from fedsi.data.prepare import open_population, prepare
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, OOV, PAD
from fedsi.data.splits import hash_order, heldout_groups, is_heldout_sentence
from fedsi.data.token_store import NAMES, StoredPopulation
from fedsi.data.vocabulary import WordVocabulary
from fedsi.data.word_ids import WordIds
from fedsi.data.words import Splitting, split_words
from fedsi.experiment import DataSettings
from tests.fedsi.data.corpora import built, content_of, files_of, rows_of


class TinyWordIds(WordIds):
    def __init__(self, folder: Path, splitting: Splitting) -> None:
        super().__init__(folder, splitting, most_words=3)


@pytest.fixture
def tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every buffer so small that a corpus of a few rows overflows all of them."""
    make_chunks_tiny(monkeypatch)


def make_chunks_tiny(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(spool, "ROWS_AT_A_TIME", 3)
    patch.setattr(spool, "TOKENS_AT_A_TIME", 5)
    patch.setattr(ingest, "_BATCH_ROWS", 2)
    patch.setattr(ingest, "_BATCH_CHARACTERS", 12)
    patch.setattr(build_store, "WordIds", TinyWordIds)
    patch.setattr(chosen_words, "COVERAGE_SIZES", (1, 2, 4))


@dataclass
class Twin:
    """The expected content of a store, computed with lists and counters."""

    names: list[str]
    training: int
    words: list[list[list[str]]]
    """Token ids by client and sentence."""
    vocabulary: list[str]
    examples: list[list[list[int]]]


def twin_of(rows: list[Row], data: DataSettings) -> Twin:
    texts: dict[tuple[bool, str], list[list[str]]] = {}
    group_of: dict[str, str] = {}
    by_sentences = data.heldout_by == "sentences"
    for row in rows:
        if words := split_words(row.text, data.words):
            out = by_sentences and is_heldout_sentence(row.client, row.text, data.heldout_fraction)
            texts.setdefault((out, row.client), []).append(words)
            group_of.setdefault(row.client, row.group)
    if not by_sentences:
        if data.heldout_by == "clients" or len(set(group_of.values())) == 1:
            group_of = {client: client for client in group_of}
        chosen = heldout_groups(group_of, data.heldout_fraction)
        texts = {(group_of[client] in chosen, client): v for (_, client), v in texts.items()}
    training = sorted(client for out, client in texts if not out)
    heldout = sorted((client for out, client in texts if out), key=hash_order)
    spoken = [texts[False, c] for c in training] + [texts[True, c] for c in heldout]
    scores: Counter[str] = Counter()
    for sentences in spoken[: len(training)]:
        used = [word for sentence in sentences for word in sentence]
        scores.update(set(used) if data.vocabulary == "users" else used)
    vocabulary = sorted(scores, key=lambda word: (-scores[word], word))[: data.vocabulary_size]
    id_of = {word: FIRST_WORD + place for place, word in enumerate(vocabulary)}
    length = data.sequence_length
    examples = [
        [
            ([BOS, *(id_of.get(w, OOV) for w in s[:length]), EOS] + [PAD] * length)[: length + 1]
            for s in sentences
        ]
        for sentences in spoken
    ]
    return Twin([*training, *heldout], len(training), spoken, vocabulary, examples)


def statistics_of(twin: Twin) -> dict[str, Any]:
    """Compute the expected ``meta.json`` of a corpus."""
    sizes = [sum(map(len, sentences)) for sentences in twin.words]
    own, unseen = twin.words[: twin.training], twin.words[twin.training :]
    flat_own = [w for sentences in own for s in sentences for w in s]
    flat_unseen = [w for sentences in unseen for s in sentences for w in s]
    known = set(twin.vocabulary)
    return {
        "words": sum(sizes),
        "training_words": len(flat_own),
        "heldout_words": len(flat_unseen),
        "words_per_client": {
            f"p{share}": pytest.approx(np.percentile(sizes, share)) for share in (10, 50, 90, 99)
        },
        "oov_rate_training": pytest.approx(np.mean([w not in known for w in flat_own])),
        "oov_rate_heldout": pytest.approx(np.mean([w not in known for w in flat_unseen])),
        "distinct_words": len(set(flat_own)),
        "vocabulary_coverage": coverage_of(Counter(flat_own), len({*flat_own, *flat_unseen})),
    }


def coverage_of(counts: Counter[str], different: int) -> dict[str, Any]:
    return {
        str(size): pytest.approx(sum(n for _, n in counts.most_common(size)) / counts.total())
        for size in chosen_words.COVERAGE_SIZES
        if size < different
    }


def check_against(twin: Twin, folder: Path) -> None:
    population = StoredPopulation(folder)
    description = population.description
    assert json.loads((folder / NAMES).read_text(encoding="utf-8")) == twin.names
    assert description.training_clients == twin.training
    assert description.heldout_clients == len(twin.names) - twin.training
    vocabulary = population.vocabulary()
    assert isinstance(vocabulary, WordVocabulary)
    assert list(vocabulary.words) == twin.vocabulary
    assert description.vocabulary_size == len(vocabulary)
    examples = [population.examples(k).tolist() for k in range(len(twin.names))]
    assert examples == twin.examples
    assert description.training_examples == sum(map(len, examples[: twin.training]))
    assert description.heldout_examples == sum(map(len, examples[twin.training :]))
    assert read_meta(folder)["statistics"] == statistics_of(twin)
    client_words = np.load(folder / "client_words.npy").tolist()
    assert client_words == [sum(map(len, sentences)) for sentences in twin.words]
    assert int(description.content_digest, 16) == digest_of(twin)
    check_unigram(population, twin)


def digest_of(twin: Twin) -> int:
    """Add the hashes of all training clients: of the name, and of the rows without padding."""
    total = 0
    for name, rows in zip(twin.names[: twin.training], twin.examples, strict=False):
        sentences = [[token for token in row if token > EOS] for row in rows]
        text = name.encode("utf-8", "surrogatepass")
        numbers = np.array([len(sentence) for sentence in sentences], "<i8").tobytes()
        tokens = np.array([token for sentence in sentences for token in sentence], "<i4").tobytes()
        head = f"{len(text)} {len(sentences)} ".encode()
        total += int.from_bytes(sha256(head + text + numbers + tokens).digest(), "big")
    return total % 2**256


def check_unigram(population: StoredPopulation, twin: Twin) -> None:
    def targets(clients: list[list[list[int]]]) -> list[int]:
        return [t for rows in clients for row in rows for t in row[1:] if t != PAD]

    counts = Counter(targets(twin.examples[: twin.training]))
    ids = range(EOS, FIRST_WORD + len(twin.vocabulary))
    total = sum(counts[token] + 1 for token in ids)
    logarithms = {token: np.log((counts[token] + 1) / total) for token in ids}
    found = population.unigram_log_probabilities
    assert found[:EOS].tolist() == [-np.inf, -np.inf]
    np.testing.assert_allclose(found[EOS:], list(logarithms.values()))
    loss = -np.mean([logarithms[t] for t in targets(twin.examples[twin.training :])])
    assert population.description.unigram_loss == pytest.approx(loss)


TEXTS = st.lists(
    st.sampled_from(["a", "b", "c", "Émile", "don't", "x2", "\ud800", "\x85", "\0", "--"]),
    max_size=7,
).map(" ".join)
ROWS = st.lists(
    st.builds(Row, st.sampled_from("stuvwxyz"), st.sampled_from("123"), TEXTS),
    min_size=1,
    max_size=30,
)
SETTINGS = st.builds(
    DataSettings,
    heldout_by=st.sampled_from(["groups", "clients", "sentences"]),
    heldout_fraction=st.sampled_from([0.2, 0.5]),
    words=st.sampled_from(get_args(Splitting)),
    vocabulary=st.sampled_from(["count", "users"]),
    vocabulary_size=st.integers(1, 8),
    sequence_length=st.integers(1, 6),
)


@settings(max_examples=150)
@given(ROWS, SETTINGS)
def test_a_store_built_in_tiny_chunks_is_the_twin_s(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], data: DataSettings
) -> None:
    folder = tmp_path_factory.mktemp("store") / "p"
    twin = twin_of(rows, data)
    with pytest.MonkeyPatch.context() as patch:
        make_chunks_tiny(patch)
        if 0 < twin.training < len(twin.names):
            built(folder, rows, **data.model_dump())
            check_against(twin, folder)
        else:
            with pytest.raises(UserError):
                built(folder, rows, **data.model_dump())


def varied_rows(clients: int, per_client: int) -> list[Row]:
    """Return rows of Zipf-distributed words, client after client."""
    rng = np.random.default_rng(1)
    words = rng.zipf(1.4, (clients, per_client, 30)) % 5000
    lengths = rng.integers(1, 30, (clients, per_client))
    return [
        Row(f"c{k}", f"g{k % 20}", " ".join(f"w{word}" for word in words[k, n, : lengths[k, n]]))
        for k in range(clients)
        for n in range(per_client)
    ]


MANY = varied_rows(60, 8)


def test_a_varied_corpus_is_the_twin_s_and_has_coverage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chosen_words, "COVERAGE_SIZES", (10, 100, 4000))
    options: dict[str, Any] = {"words": "spaces", "vocabulary_size": 300}
    built(tmp_path / "p", MANY, **options)
    data = DataSettings(sequence_length=8, heldout_fraction=0.3, **options)
    twin = twin_of(MANY, data)
    check_against(twin, tmp_path / "p")
    assert list(statistics_of(twin)["vocabulary_coverage"]) == ["10", "100"]


@pytest.mark.parametrize(
    "options",
    [
        {"vocabulary": "count"},
        {"vocabulary": "users", "heldout_by": "sentences"},
        {"vocabulary": "bpe", "heldout_by": "clients"},
        {"partition": "dirichlet"},
    ],
)
def test_tiny_chunks_and_large_ones_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    options = {"words": "spaces", "vocabulary_size": 300} | options
    built(tmp_path / "large", MANY, **options)
    monkeypatch.setattr(spool, "ROWS_AT_A_TIME", 37)
    monkeypatch.setattr(spool, "TOKENS_AT_A_TIME", 500)
    monkeypatch.setattr(ingest, "_BATCH_ROWS", 7)
    monkeypatch.setattr(build_store, "WordIds", TinyWordIds)
    built(tmp_path / "tiny", MANY, **options)
    assert files_of(tmp_path / "large") == files_of(tmp_path / "tiny")


@pytest.mark.usefixtures("tiny_chunks")
def test_interleaved_clients_are_those_that_come_one_after_another(tmp_path: Path) -> None:
    rows = MANY[:160]
    interleaved = [row for first in range(8) for row in rows[first::8]]
    assert interleaved != rows
    built(tmp_path / "together", rows, words="spaces")
    built(tmp_path / "interleaved", interleaved, words="spaces")
    assert files_of(tmp_path / "together") == files_of(tmp_path / "interleaved")


def test_clients_without_words_are_not_counted(tmp_path: Path) -> None:
    texts = {f"c{k}": ["some text", "12 !!"] for k in range(6)} | {
        f"mute{k}": ["", " ", "42", "\0"] for k in range(30)
    }
    description = built(tmp_path / "p", rows_of(texts)).description
    assert (description.training_clients, description.heldout_clients) == (5, 1)
    assert (description.training_examples, description.heldout_examples) == (5, 1)


@pytest.mark.parametrize(("words", "dtype"), [(65_535 - 4, np.uint16), (65_536 - 4, np.int32)])
def test_more_token_ids_than_16_bits_hold_are_32_bits_wide(
    tmp_path: Path, words: int, dtype: type
) -> None:
    numbers = [" ".join(f"w{n}" for n in range(k, min(k + 8, words))) for k in range(0, words, 8)]
    rows = [
        *(Row("train", "", text, "train") for text in numbers),
        Row("test", "", f"w0 w{words - 1} w9999 never", "test"),
    ]
    options = {"words": "spaces", "vocabulary_size": 100_000, "heldout_split": "test"}
    population = built(tmp_path / "p", rows, **options)
    assert np.load(tmp_path / "p" / "tokens.npy").dtype == dtype
    assert population.description.vocabulary_size == words + 4
    content = content_of(tmp_path / "p")
    assert content.training["train"] == numbers
    assert content.heldout["test"] == [f"w0 w{words - 1} w9999 <oov>"]
    # The alphabetically last word has the highest id.
    assert population.examples(0).max() == words + 3


def test_a_line_of_a_million_characters(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    texts = {"long": "ab " * 333_333 + "c", "word": "z" * 1_000_000, "d": "ab", "e": "ab c"}
    path.write_text("".join(json.dumps({"user": u, "text": t}) + "\n" for u, t in texts.items()))
    folder = prepare(DataSettings(corpus=str(path)), tmp_path / "cache")
    content = content_of(folder)
    sentences = content.training | content.heldout
    assert sentences["long"] in (["ab " * 19 + "ab"], ["<oov> " * 19 + "<oov>"])
    assert sentences["word"] in (["z" * 1_000_000], ["<oov>"])
    assert sorted(np.load(folder / "client_words.npy").tolist()) == [1, 1, 2, 333_334]


def test_odd_characters_stay_in_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    names = ["nul\0", "lone \ud800", "tab\t", "new\nline", "\u2028", "ümlaut"]
    texts = ["a\0b c", "\ud83d d", "e\u2028f", "g\x85h", "i\vj"]
    lines = [json.dumps({"user": name, "text": text}) for text in texts for name in names]
    path.write_text("\n".join(lines))
    data = DataSettings(corpus=str(path), words="spaces", heldout_by="clients")
    folder = prepare(data, tmp_path / "cache")
    content = content_of(folder)
    assert set(content.training) | set(content.heldout) == set(names)
    expected = ["a\0b c", "\ufffd d", "e f", "g h", "i j"]
    assert all(sentences == expected for sentences in content.training.values())
    assert sorted(open_population(folder).find(names).tolist()) == list(range(6))


def test_rows_of_one_client_in_several_files_belong_together(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(2):
        rows = [{"user": f"c{k}", "text": f"part {letter}"} for k in range(4) for letter in "xy"]
        lines = [json.dumps(row | {"text": row["text"] + "ab"[number]}) for row in rows]
        (folder / f"{number}.jsonl").write_text("\n".join(lines))
    stored = prepare(DataSettings(corpus=str(folder)), tmp_path / "cache")
    content = content_of(stored).training
    assert set(map(tuple, content.values())) == {("part xa", "part ya", "part xb", "part yb")}
    assert len(content) == 3


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "c.jsonl",
            b'{"user": "a", "text": "n\xc3\xa9e"}\n{"user": "b", "text": "n\xe9e"}\n',
            r"not valid UTF-8 .*byte 0xe9.*convert",
        ),
        ("c.csv", b"user,text\na,n\xc3\xa9e\nb,n\xe9e\n", r"not valid UTF-8 .*byte 0xe9"),
        (
            "c.json",
            b'{"users": ["a", "a"], "user_data": {"a": {"x": ["hi"], "y": [""]}}}',
            "its users must be different",
        ),
    ],
)
def test_a_bad_corpus_leaves_no_store(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=expected):
        prepare(DataSettings(corpus=str(tmp_path / name)), tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").rglob("*")] == ["populations"]
