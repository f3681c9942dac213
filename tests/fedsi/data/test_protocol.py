import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.protocol import BOS, EOS, FIRST_WORD, PAD, pad_examples


def test_a_short_sentence_ends_and_a_full_one_does_not() -> None:
    tokens = np.array([5, 6, 7, 8, 9], dtype=np.int32)
    rows = pad_examples(tokens, np.array([0, 2, 5]), sequence_length=3)
    assert rows.tolist() == [[BOS, 5, 6, EOS], [BOS, 7, 8, 9]]


@given(
    st.lists(st.lists(st.integers(FIRST_WORD, 50), min_size=1, max_size=5), max_size=6),
    st.integers(5, 8),
)
def test_rows_follow_the_protocol(sentences: list[list[int]], length: int) -> None:
    starts = np.cumsum([0, *map(len, sentences)])
    flat = np.array([token for s in sentences for token in s], dtype=np.int32)
    slow = [
        ([BOS, *s[:length], *([EOS] if len(s) < length else [])] + [PAD] * length)[: length + 1]
        for s in sentences
    ]
    assert pad_examples(flat, starts, length).tolist() == slow
