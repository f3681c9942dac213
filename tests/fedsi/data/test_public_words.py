"""The public word list: its rank, its use by name, and what it spares a private run."""

import json
import platform
import warnings
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.data import public_words as module
from fedsi.data.corpora_in_memory import corpus_from_mapping
from fedsi.data.public_words import PUBLIC_WORDS, SIZE, library_texts, public_words, ranked_words
from fedsi.data.vocabulary import WordVocabulary
from fedsi.data.words import Splitting, split_words
from simulations import simulate
from simulations.cli.main import main
from tests.fedsi.data.corpora import built, rows_of

LISTED = json.loads(PUBLIC_WORDS.read_text(encoding="utf-8"))
TEXTS = {f"c{k}": ["the use of zyzzyva", "this is the zyzzyva"] for k in range(40)}
PRIVATE = {
    "data.vocabulary_size": 200, "data.heldout_by": "clients", "server.sampling": "poisson",
    "server.averaging": "uniform", "server.rounds": 1, "server.evaluate_every": 1,
    "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1.0,
}  # fmt: skip


def test_words_of_more_modules_come_first(tmp_path: Path) -> None:
    sources = {
        "a.py": '"""The loud cat sees the dog."""\n\n# The cat and the loud dog.\nx = "No word."\n',
        "b.py": '"""A dog sees the cat."""\n',
        "c.py": "# The dog is there, and only there.\n\n# There is one more.\n",
        "site-packages/d.py": '"""The zebra sees the zebra."""\n',
    }  # fmt: skip
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    # Three modules have the and dog, of which the is used more often; loud and there are of one.
    words = ranked_words(library_texts(tmp_path))
    assert words == ["the", "dog", "cat", "and", "sees"]


def test_the_list_is_of_words_as_texts_are_split() -> None:
    words = LISTED["words"]
    assert 9000 < len(words) == len(set(words)) <= SIZE
    assert all(split_words(word, "letters") == [word] for word in words)
    assert "PSF License" in LISTED["licence"]
    assert "Python 3." in LISTED["source"]


@pytest.mark.slow
def test_the_script_writes_the_list_that_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    if f"Python {platform.python_version()}," not in LISTED["source"]:
        pytest.skip("the list was made by another version of Python")
    module._main()
    assert capsys.readouterr().out == PUBLIC_WORDS.read_text(encoding="utf-8")


@pytest.mark.parametrize("splitting", ["letters", "punctuation", "spaces"])
def test_only_words_that_the_rule_makes_take_ids(splitting: Splitting) -> None:
    words = public_words(300, splitting)
    assert len(words) == 300
    assert all(split_words(word, splitting) == [word] for word in words)


def test_characters_are_no_words() -> None:
    with pytest.raises(UserError, match=r"data.words=characters has none; choose another"):
        public_words(10, "characters")


def test_a_store_has_the_list_whatever_the_clients_write(tmp_path: Path) -> None:
    population = built(tmp_path / "p", rows_of(TEXTS), vocabulary="public", vocabulary_size=50)
    vocabulary = population.vocabulary()
    assert isinstance(vocabulary, WordVocabulary)
    assert list(vocabulary.words) == LISTED["words"][:50]
    assert population.description.vocabulary_source == "public"


@pytest.mark.parametrize("source", ["count", "public"])
def test_a_private_run_warns_of_a_counted_vocabulary_and_its_statement_says_so(
    source: str, smoke: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = smoke.updated({"data.corpus": "pydocs", **PRIVATE, "data.vocabulary": source})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        simulate(base, cache=tmp_path / "c", out=tmp_path / "r", corpus=corpus_from_mapping(TEXTS))
    told = [str(one.message) for one in caught if "vocabulary was learned" in str(one.message)]
    assert main(["privacy", "--statement", "--run", str(tmp_path / "r")]) == 0
    stated = capsys.readouterr().out
    if source == "count":
        assert len(told) == 1
        assert "set data.vocabulary=public" in told[0]
        assert "the vocabulary, which was learned from the clients' texts (count)" in stated
    else:
        assert not told
        assert "vocabulary" not in stated
