"""Words with ids: counted, listed, and read back from their file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi import UserError
from fedsi.data.corpus import Row
from fedsi.data.protocol import FIRST_WORD, OOV
from fedsi.data.token_store import StoredPopulation
from fedsi.data.vocabulary import WORDS_FILE, WordVocabulary, load_vocabulary
from fedsi.data.word_list import read_word_list
from fedsi.data.words import SPACE, Splitting, split_words
from tests.fedsi.data.corpora import built, content_of, rows_of


def words_in(population: StoredPopulation) -> Sequence[str]:
    vocabulary = population.vocabulary()
    assert isinstance(vocabulary, WordVocabulary)
    return vocabulary.words


def first_sentences(folder: Path) -> list[str]:
    return next(iter(content_of(folder).training.values()))


def test_ids_follow_the_special_tokens() -> None:
    vocabulary = WordVocabulary(["the", "cat"])
    assert len(vocabulary) == 6
    assert vocabulary.encode("The  cat, the DOG!") == [
        FIRST_WORD,
        FIRST_WORD + 1,
        FIRST_WORD,
        OOV,
    ]
    assert vocabulary.decode([1, FIRST_WORD + 1, OOV]) == "<bos> cat <oov>"


@pytest.mark.parametrize(
    ("vocabulary", "best"),
    [("count", ("spam", "eggs", "ham")), ("users", ("eggs", "ham", "spam"))],
)
def test_the_most_frequent_words_or_those_of_most_users(
    tmp_path: Path, vocabulary: str, best: tuple[str, ...]
) -> None:
    loud = [Row("loud", "", "spam " * 50, "train"), Row("loud", "", "spam", "train")]
    quiet = [Row(f"c{k}", "", "ham eggs", "train") for k in range(9)]
    unseen = [Row(f"h{k}", "", "unseen " * 99, "test") for k in range(20)]
    settings = {"vocabulary": vocabulary, "vocabulary_size": 3, "heldout_split": "test"}
    population = built(tmp_path / "p", [*loud, *quiet, *unseen], **settings)
    assert words_in(population) == best
    assert population.description.vocabulary_source == vocabulary


def test_ties_are_in_alphabetical_order_and_words_without_use_are_left_out(tmp_path: Path) -> None:
    texts = {f"c{k}": ["zebra émile apple mango"] for k in range(4)}
    population = built(tmp_path / "p", rows_of(texts), vocabulary_size=100)
    assert words_in(population) == ("apple", "mango", "zebra", "émile")
    population = built(tmp_path / "q", rows_of(texts), vocabulary_size=2)
    assert words_in(population) == ("apple", "mango")


def listed(tmp_path: Path, content: bytes, **settings: Any) -> StoredPopulation:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    texts = {f"c{k}": ["the cat sat", "cat don't sat"] for k in range(4)}
    return built(tmp_path / "p", rows_of(texts), vocabulary=str(path), **settings)


@pytest.mark.parametrize(
    "content",
    [
        b"cat\nunused\nthe\ndon't\n",
        b"cat 500\nunused 40\nthe 3\ndon't 1",
        b"\xef\xbb\xbfcat\t9\r\nunused\t8\r\n\r\nThe\t7\r\n don't \n",
        "cat 4\r\nunused\r\nTHE\r\ndon\u2019t\r\n".encode("utf-16"),
    ],
)
def test_words_of_a_list_keep_its_order(tmp_path: Path, content: bytes) -> None:
    population = listed(tmp_path, content)
    assert words_in(population) == ("cat", "unused", "the", "don't")
    # Targets are c, u, t, d = 4 .. 7: "the cat sat" and "cat don't sat" without sat.
    assert population.examples(0)[:, 1:5].tolist() == [[6, 4, OOV, 2], [4, 7, OOV, 2]]
    assert population.description.vocabulary_source == "file"


def test_only_the_first_words_of_a_list_are_taken(tmp_path: Path) -> None:
    population = listed(tmp_path, b"cat 3\nthe 2\nbad line beyond\n", vocabulary_size=2)
    assert words_in(population) == ("cat", "the")
    assert len(population.vocabulary()) == population.description.vocabulary_size == 6


def test_of_a_list_without_any_word_of_the_corpus_all_is_unknown(tmp_path: Path) -> None:
    population = listed(tmp_path, b"one\ntwo\n")
    assert set(population.examples(0)[:, 1:4].ravel().tolist()) == {OOV}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", r"words.txt is empty; expected one word per line"),
        (b"\n  \n\t\n", "is empty"),
        (b"cat\ndog\ncat\n", r"line 3: the word 'cat' is there twice \(line 1\)"),
        (b"cat 5\nCat 4\n", r"line 2: the word 'Cat' is there twice \(line 1\)"),
        (b"cat\xff\n", "words.txt is not UTF-8 text"),
        ("cat\n".encode("utf-16")[:-1], "words.txt is not UTF-8 text"),
        (b"cat 5 6\n", r"line 1: expected a word, or a word and its count, not 'cat 5 6'"),
        (b"cat\nnew york\n", r"line 2: expected a word, or a word and its count"),
        (b"cat -5\n", "line 1: expected"),
        (b"cat 0.5\n", "line 1: expected"),
    ],
)
def test_bad_word_lists(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        listed(tmp_path, content)
    assert not (tmp_path / "p").exists()


def test_a_word_list_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the word list .*none: No such file"):
        read_word_list(tmp_path / "none", 5, "letters")
    with pytest.raises(UserError, match=r"cannot read the word list .*directory"):
        read_word_list(tmp_path, 5, "letters")


SPLITTINGS = {
    "letters": ["don't", "stop", "me", "now2", "née"],
    "punctuation": ["don't", "stop", "-", "me", "now2", "!!", "née"],
    "spaces": ["don't", "stop", "-me", "now2!!", "née\0"],
    "characters": list(f"don't{SPACE}stop{SPACE}-me{SPACE}now2!!{SPACE}née\0"),
}


@pytest.mark.parametrize("kind", get_args(Splitting))
def test_what_a_word_is(tmp_path: Path, kind: Splitting) -> None:
    texts = {f"c{k}": ["Don't STOP -me\tnow2!!\u2028NÉE\0"] for k in range(4)}
    expected = SPLITTINGS[kind] + (["\0"] if kind == "punctuation" else [])
    population = built(tmp_path / "p", rows_of(texts), words=kind, sequence_length=40)
    assert set(words_in(population)) == set(expected)
    text = "".join(expected).replace(SPACE, " ") if kind == "characters" else " ".join(expected)
    assert first_sentences(tmp_path / "p") == [text]
    vocabulary = population.vocabulary()
    ids = vocabulary.encode(texts["c0"][0])
    assert population.examples(0)[0, 1 : len(ids) + 1].tolist() == ids


WORDS = st.lists(
    st.text(st.characters(exclude_categories=()), max_size=5).flatmap(
        lambda text: st.sampled_from(split_words(text, "spaces") or ["the"])
    ),
    unique=True,
    max_size=6,
)


@given(WORDS, st.sampled_from(get_args(Splitting)))
def test_a_vocabulary_comes_back_from_its_file(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], splitting: Splitting
) -> None:
    vocabulary = WordVocabulary(words, splitting)
    folder = tmp_path_factory.mktemp("vocabulary")
    content = vocabulary.file_text().encode("utf-8", "surrogatepass")
    (folder / WORDS_FILE).write_bytes(content)
    loaded = load_vocabulary(folder)
    assert isinstance(loaded, WordVocabulary)
    assert (loaded.words, loaded.splitting) == (vocabulary.words, splitting)
    assert loaded.file_text() == vocabulary.file_text()
    (folder / WORDS_FILE).write_bytes(content[:-1])
    with pytest.raises(UserError, match="cannot read the vocabulary"):
        load_vocabulary(folder)


LONG = "x" * 1_000_000
ODD_WORDS = {"\ud800\udfff": "\ufffd\ufffd", "a\0b": "a\0b", "\ufeffx": "x", LONG: LONG}


@pytest.mark.parametrize(
    ("odd", "stored"), ODD_WORDS.items(), ids=[ascii(word[:9]) for word in ODD_WORDS]
)
def test_odd_words_come_back_from_a_store(tmp_path: Path, odd: str, stored: str) -> None:
    texts = {f"c{k}": [f"the {odd} cat"] for k in range(4)}
    population = built(tmp_path / "p", rows_of(texts), words="spaces")
    assert set(words_in(population)) == {"the", stored, "cat"}
    assert first_sentences(tmp_path / "p") == [f"the {stored} cat"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "No such file"),
        (b"", "the last line is not whole"),
        (b"the\ncat\n", "the first line does not say how words are split"),
        (b"# words are split at commas\nthe\n", "the first line"),
        (b"# words are split at letters\n\xff\xfe\n", "can't decode byte 0xff"),
        (b"# words are split at letters\nthe\nca", "last line is not whole"),
    ],
)
def test_a_damaged_vocabulary_file(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / WORDS_FILE).write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read the vocabulary in .*{expected}"):
        load_vocabulary(tmp_path)


def test_the_vocabulary_of_a_run_is_a_list_whose_words_keep_their_ids(tmp_path: Path) -> None:
    texts = {f"c{k}": ["so it begins don\u2019t 👍🏽"] for k in range(4)}
    first = built(tmp_path / "first", rows_of(texts))
    listed = tmp_path / "first" / WORDS_FILE
    others = {f"c{k}": ["it don't begin 👍🏽 so"] for k in range(4)}
    second = built(tmp_path / "second", rows_of(others), vocabulary=str(listed))
    assert words_in(second) == words_in(first)
    text = "so it begins don't 👍🏽 never"
    assert second.vocabulary().encode(text) == first.vocabulary().encode(text)
    with pytest.raises(UserError, match=r"data.words = 'letters', and here it is 'spaces'"):
        built(tmp_path / "third", rows_of(others), vocabulary=str(listed), words="spaces")


def test_words_of_a_list_are_spelt_like_those_of_texts(tmp_path: Path) -> None:
    population = listed(tmp_path, "cat\nDon\u2019t 5\ncafe\u0301\n".encode())
    assert words_in(population) == ("cat", "don't", "café")


def test_words_of_a_list_that_no_text_can_hold_are_named(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"2 of the first 3 words of .* cannot occur .*'42'"):
        population = listed(tmp_path, b"cat\n42\nend.next\n")
    assert words_in(population) == ("cat", "42", "end.next")
