from fedsi.data.protocol import FIRST_WORD, OOV
from fedsi.data.vocabulary import WordVocabulary


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
