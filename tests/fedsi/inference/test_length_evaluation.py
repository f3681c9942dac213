"""Sentences packed into sequences of any length: nothing lost, nothing in the wrong place."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.protocol import BOS, EOS, FIRST_WORD, PAD, Tokens, pad_examples
from fedsi.errors import UserError
from fedsi.inference.length_evaluation import evaluate_sequences, fill_sequences
from fedsi.models.model import Model
from fedsi.tasks.next_word import COLUMNS, TASK
from tests.built_in import build

TRAINED = 5
VOCABULARY = 9
Sentences = list[list[int]]

sentences_of_words = st.lists(
    st.lists(st.integers(FIRST_WORD, VOCABULARY - 1), max_size=TRAINED), max_size=12
)


def rows(sentences: Sentences) -> Tokens:
    tokens = np.array([word for words in sentences for word in words], dtype=np.int32)
    return pad_examples(tokens, np.cumsum([0, *map(len, sentences)]), TRAINED)


def pairs(words: list[int]) -> list[tuple[int, int]]:
    ended = words + ([EOS] if len(words) < TRAINED else [])
    return list(zip([BOS, *words], ended, strict=False))


@given(sentences=sentences_of_words, length=st.integers(1, 20))
def test_packing_equals_its_description(sentences: Sentences, length: int) -> None:
    expected: list[list[tuple[int, int]]] = []
    for words in sentences:
        rest = pairs(words)
        while rest:
            piece, rest = rest[:length], rest[length:]
            if not expected or len(expected[-1]) + len(piece) > length:
                expected.append([])
            expected[-1].extend(piece)
    packed = fill_sequences(TASK, rows(sentences), length)
    longest = max(map(len, expected), default=0)
    assert packed.inputs.shape == packed.targets.shape == (len(expected), longest)
    for row, wanted in enumerate(expected):
        found = list(zip(packed.inputs[row].tolist(), packed.targets[row].tolist(), strict=True))
        assert found[: len(wanted)] == wanted
        assert set(found[len(wanted) :]) <= {(PAD, PAD)}
        # Longer sequences rely on this: unless it was cut, a sequence begins with a sentence.
        assert length < TRAINED or wanted[0][0] == BOS


def model(architecture: str, **changes: Any) -> Model:
    sizes = {"embedding_size": 8, "hidden_size": 6, "heads": 2, "feedforward_size": 10}
    return build(VOCABULARY, architecture=architecture, **sizes, **changes)


UNIGRAM = torch.linspace(0.1, 1, VOCABULARY, dtype=torch.float64).log()


@pytest.mark.parametrize("architecture", ["si_cifg", "transformer"])
@pytest.mark.parametrize("length", [1, 3, 5, 8, 40, 10**12])
def test_counts_equal_those_of_one_position_after_the_other(architecture: str, length: int) -> None:
    rng = np.random.default_rng(length)
    sentences = [rng.integers(FIRST_WORD, VOCABULARY, n).tolist() for n in (0, 2, 5, 4, 1, 5, 3)]
    lm = model(architecture)
    parameters = lm.layout.views(
        torch.randn(lm.layout.size, generator=torch.Generator().manual_seed(1)).double()
    )
    packed = fill_sequences(TASK, rows(sentences), length)
    whole, beyond = evaluate_sequences(TASK, lm, parameters, packed, UNIGRAM, TRAINED)
    losses, far, hits, unigram = 0.0, 0.0, 0, 0.0
    count = 0
    for inputs, targets in zip(packed.inputs, packed.targets, strict=True):
        for place, target in enumerate(targets.tolist()):
            if target == PAD:
                continue
            read = torch.from_numpy(inputs[: place + 1]).long()[None]
            logits = lm.logits(parameters, lm.features(parameters, read)[:, -1])[0]
            loss = -float(logits.log_softmax(-1)[target])
            losses += loss
            hits += int(logits.argmax()) == target
            unigram -= float(UNIGRAM[target])
            if place >= TRAINED:
                far, count = far + loss, count + 1
    assert whole[COLUMNS.index("tokens")] == sum(len(pairs(words)) for words in sentences)
    assert whole[COLUMNS.index("loss")] == pytest.approx(losses, abs=1e-9)
    assert whole[COLUMNS.index("unigram_loss")] == pytest.approx(unigram)
    assert whole[COLUMNS.index("hits")] == hits
    assert beyond[COLUMNS.index("tokens")] == count
    assert beyond[COLUMNS.index("loss")] == pytest.approx(far, abs=1e-9)
    assert (count > 0) == (length > TRAINED)


def test_sequences_beyond_the_learned_positions_are_refused() -> None:
    lm = model("transformer", positions="learned", max_length=TRAINED)
    packed = fill_sequences(TASK, rows([[5, 6], [7, 8]]), 6)
    parameters = lm.layout.views(torch.zeros(lm.layout.size))
    with pytest.raises(UserError, match="6 tokens is longer than the 5 learned"):
        evaluate_sequences(TASK, lm, parameters, packed, UNIGRAM, TRAINED)


def test_a_client_without_sentences_counts_nothing() -> None:
    lm = model("cifg")
    packed = fill_sequences(TASK, rows([]), 6)
    assert packed.inputs.shape == (0, 0)
    parameters = lm.layout.views(torch.zeros(lm.layout.size))
    whole, beyond = evaluate_sequences(TASK, lm, parameters, packed, UNIGRAM, TRAINED)
    assert whole[COLUMNS.index("tokens")] == beyond[COLUMNS.index("tokens")] == 0
    assert math.isclose(whole[COLUMNS.index("loss")], 0)
