"""Sub-words: trained on training clients only, or loaded from a tokenizer.json."""

import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.protocol import FIRST_WORD, OOV
from fedsi.data.subwords import BYTES, TOKENIZER_FILE, SubwordVocabulary
from fedsi.data.token_store import StoredPopulation
from tests.fedsi.data.corpora import built, content_of, letters, own_words, rows_of

BPE: dict[str, Any] = {"vocabulary": "bpe", "vocabulary_size": 300, "sequence_length": 40}


def pieces_of(folder: Path) -> set[str]:
    model = json.loads((folder / TOKENIZER_FILE).read_text(encoding="utf-8"))["model"]
    return set(model["vocab"])


@pytest.fixture(scope="module")
def trained() -> SubwordVocabulary:
    return SubwordVocabulary.trained(iter(["the cat sat on the mat"] * 9), 270)


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"])))
def test_byte_pairs_give_back_any_text(trained: SubwordVocabulary, text: str) -> None:
    ids = trained.encode(text)
    assert all(FIRST_WORD <= token < len(trained) for token in ids)
    assert trained.decode([1, *ids, 2, 0]) == normalize("NFC", text).strip()
    assert trained.encode_batch([text, "cat"]) == [ids, trained.encode("cat")]
    assert SubwordVocabulary.from_text(trained.file_text()).encode(text) == ids


@given(st.text(st.characters(categories=["Ll", "Zs"]), min_size=1))
def test_continuations_add_up_to_the_text(trained: SubwordVocabulary, text: str) -> None:
    ids = trained.encode(text)
    words = [trained.continuation([1, *ids[:k]], ids[k]) for k in range(len(ids))]
    if not any("\ufffd" in word for word in words):  # bytes of one character apart
        assert "".join(words).strip() == text.strip()
    inside, beginning = trained.encode("cat t")[-1], trained.encode("t")[0]
    before = trained.encode("cat")
    if inside != beginning:
        assert trained.continuation(before, inside) != trained.continuation(before, beginning)


def test_frequent_words_are_one_piece_and_others_several(trained: SubwordVocabulary) -> None:
    assert BYTES + FIRST_WORD < len(trained) <= 270 + FIRST_WORD
    assert len(trained.encode("the cat")) == 2
    assert len(trained.encode("dog")) == 4
    # A lone surrogate has no bytes.
    assert trained.decode(trained.encode("a \ud800")) == "a ?"


def test_byte_pairs_are_learned_from_training_clients_alone(tmp_path: Path) -> None:
    # Forty clients have only white space, and so are not clients.
    blank = [Row(f"blank{k}", f"blank{k}", " \t") for k in range(40)]
    frequent = {f"c{k}": [f"only{letters(k)} " * 20, "shared"] for k in range(10, 30)}
    rows = [*blank, *rows_of(frequent)]
    population = built(tmp_path / "p", rows, **BPE | {"vocabulary_size": 1000})
    assert population.description.vocabulary_source == "bpe"
    content = content_of(tmp_path / "p")
    assert (len(content.training), len(content.heldout)) == (14, 6)
    pieces = pieces_of(tmp_path / "p")
    whole = {client for client in frequent if "Ġonly" + letters(int(client[1:])) in pieces}
    assert whole == set(content.training)
    # So other words of the held-out clients change nothing.
    others = {c: ["zzz qqq"] if c in content.heldout else frequent[c] for c in frequent}
    built(tmp_path / "q", [*blank, *rows_of(others)], **BPE | {"vocabulary_size": 1000})
    assert (tmp_path / "q" / TOKENIZER_FILE).read_bytes() == (
        tmp_path / "p" / TOKENIZER_FILE
    ).read_bytes()


@pytest.mark.parametrize("settings", [{"heldout_by": "sentences"}, {"heldout_split": "test"}])
def test_nor_from_held_out_sentences_or_splits(tmp_path: Path, settings: dict[str, Any]) -> None:
    rows = [
        Row(f"c{k % 5}", "g", " ".join([f"only{letters(k)}"] * 9), "test" if k % 3 else "train")
        for k in range(10, 50)
    ]
    built(tmp_path / "p", rows, **BPE | settings | {"vocabulary_size": 2000})
    content = content_of(tmp_path / "p")
    trained_on = {s.split()[0] for lines in content.training.values() for s in lines}
    heldout = {s.split()[0] for lines in content.heldout.values() for s in lines}
    assert len(trained_on) + len(heldout) == 40
    pieces = pieces_of(tmp_path / "p")
    assert all("Ġ" + word in pieces for word in trained_on)
    assert not any("Ġ" + word in pieces for word in heldout)


def test_a_store_of_byte_pairs_gives_the_texts_back(tmp_path: Path) -> None:
    texts = {f"c{k}": ["Don't STOP, née 12!", "so it\tgoes"] for k in range(4)}
    population = built(tmp_path / "p", rows_of(texts), **BPE)
    content = content_of(tmp_path / "p")
    assert content.training | content.heldout == texts
    assert population.description.vocabulary_size == len(population.vocabulary())


def test_too_few_pieces_for_all_bytes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocabulary_size = 255 is too small .* all 256 bytes"):
        built(tmp_path / "p", rows_of(own_words(4)), **BPE | {"vocabulary_size": 255})


def word_level(path: Path, vocab: dict[str, int], unknown: str | None) -> Path:
    options = {"unk_token": unknown} if unknown else {}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, **options))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(1)
    tokenizer.enable_padding(length=30)
    tokenizer.save(str(path))
    return path


def loaded(tmp_path: Path, tokenizer: Path) -> StoredPopulation:
    texts = {f"c{k}": ["the cat sat", "   "] for k in range(4)}
    return built(tmp_path / "p", rows_of(texts), vocabulary=str(tokenizer))


def test_a_tokenizer_from_a_file_encodes_without_padding_or_truncation(tmp_path: Path) -> None:
    path = word_level(tmp_path / "t.json", {"[UNK]": 0, "the": 1, "cat": 2}, "[UNK]")
    population = loaded(tmp_path, path)
    expected = [1, FIRST_WORD + 1, FIRST_WORD + 2, OOV, 2, 0, 0, 0, 0]
    assert population.examples(0).tolist() == [expected]
    assert population.description.vocabulary_source == "file"
    assert population.vocabulary().decode(expected) == "the cat"
    assert len(population.vocabulary()) == 3 + FIRST_WORD


def test_a_tokenizer_may_leave_numbers_out(tmp_path: Path) -> None:
    vocab = {"[UNK]": 0, "the": 7, "cat": 90_000}
    population = loaded(tmp_path, word_level(tmp_path / "t.json", vocab, "[UNK]"))
    assert population.examples(0)[0, 1:4].tolist() == [FIRST_WORD + 7, FIRST_WORD + 90_000, OOV]
    assert population.description.vocabulary_size == 90_001 + FIRST_WORD


def test_a_tokenizer_that_does_not_know_a_word_is_an_error(tmp_path: Path) -> None:
    path = word_level(tmp_path / "t.json", {"the": 0}, None)
    with pytest.raises(UserError, match="the tokenizer cannot encode a text"):
        loaded(tmp_path, path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "t.json: No such file"),
        (b"", "t.json: it is no tokenizer"),
        (b"{}", "it is no tokenizer"),
        (b'{"model": {"type": "BPE"}}', "it is no tokenizer"),
        (b"\xff\xe9", "can't decode byte 0xff"),
        (b"\xff\xfe\x00", "utf-16.* can't decode byte 0x00"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read the tokenizer .*{expected}"):
        loaded(tmp_path, tmp_path / "t.json")
