"""Words numbered in bounded memory, against a dictionary that holds them all."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.word_ids import WordIds
from fedsi.data.words import Splitting, split_words

SPACES = st.sampled_from([" ", "\t", "\n", "\r\n", "\x85", "\u2028", "\x1c"])
ODD = st.sampled_from(["\0", "\ud800", "\udfff", "😀", "\u200b", "İ", "\ufeff", "\\t", "#"])
COMMON = st.sampled_from(["a", "b", "É", "the", "0", "12", "'s", "!?"])
TEXTS = st.lists(st.one_of(SPACES, ODD, COMMON, st.text(max_size=3)), max_size=8).map("".join)
BATCHES = st.lists(st.lists(TEXTS, max_size=4), max_size=12)


@given(BATCHES, st.sampled_from(get_args(Splitting)), st.integers(0, 6))
def test_many_small_tables_number_words_like_one_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[str]],
    splitting: Splitting,
    most_words: int,
) -> None:
    encoder = WordIds(tmp_path_factory.mktemp("words"), splitting, most_words)
    numbers = [encoder.encode_batch(batch) for batch in batches]
    expected = [[split_words(text, splitting) for text in batch] for batch in batches]
    different = sorted({word for batch in expected for text in batch for word in text})
    rank_of = {word: rank for rank, word in enumerate(different)}

    ranks = encoder.same_words()
    assert [[[ranks[n] for n in text] for text in batch] for batch in numbers] == [
        [[rank_of[word] for word in text] for text in batch] for batch in expected
    ]
    backwards = list(range(len(different)))[::-1]
    assert encoder.words(backwards) == different[::-1]
    asked = [*different[::2], "never there", "\ud801"]
    assert encoder.ranks(asked) == [rank_of.get(word) for word in asked]


def test_a_full_table_is_written_and_emptied(tmp_path: Path) -> None:
    encoder = WordIds(tmp_path, "spaces", most_words=2)
    batches = [["a b"], ["a c"], ["a d"], ["a b"]]
    numbers = [encoder.encode_batch(batch)[0] for batch in batches]
    # Three words are one too many, so the third batch meets an empty table.
    assert numbers == [[0, 1], [0, 2], [3, 4], [3, 5]]
    assert len(list(tmp_path.iterdir())) == 1
    assert encoder.same_words().tolist() == [0, 1, 2, 0, 3, 1]
