from collections import Counter

from fedsi.data.protocol import FIRST_WORD, OOV
from fedsi.data.vocabulary import Vocabulary


def test_most_frequent_words_first_and_ties_by_alphabet() -> None:
    vocabulary = Vocabulary.from_counts(Counter({"b": 2, "a": 2, "c": 5, "rare": 1}), 3)
    assert vocabulary.words == ("c", "a", "b")
    assert len(vocabulary) == 7
    assert vocabulary.encode(["b", "rare", "c"]) == [FIRST_WORD + 2, OOV, FIRST_WORD]
