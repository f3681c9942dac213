"""Reading word by word equals reading the whole text; generation uses it."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi import Experiment
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, OOV
from fedsi.data.vocabulary import WordVocabulary
from fedsi.errors import UserError
from fedsi.inference.generation import _draw, write_on
from fedsi.inference.reading import TrainedModel, begin, candidates, read_more, read_prompt
from fedsi.learning.predictions import predictions
from fedsi.models.build import build_model
from fedsi.models.table import ARCHITECTURES
from fedsi.tasks.table import task_of
from tests.built_in import used

WORDS = ("a", "b", "c", "d", "e", "f", "g")
SIZES = {"embedding_size": 8, "hidden_size": 6, "heads": 2, "feedforward_size": 10}
USERS = "tests.own_models:Gru"


def trained_model(architecture: str, **changes: Any) -> TrainedModel:
    experiment = Experiment(model=used(**{**SIZES, "architecture": architecture, **changes}))
    vocabulary = WordVocabulary(WORDS)
    model = build_model(experiment, len(vocabulary))
    flat = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(5)).double()
    return TrainedModel(model, model.layout.views(flat), vocabulary)


@cache
def shared_model(architecture: str) -> TrainedModel:
    """Return a model that no test changes."""
    return trained_model(architecture)


def at_once(trained: TrainedModel, tokens: tuple[int, ...]) -> torch.Tensor:
    """Return the logits after a whole text, ``[vocabulary]``: the slow reference."""
    features = trained.model.features(trained.parameters, torch.tensor([tokens]))
    return trained.model.logits(trained.parameters, features[:, -1])[0].detach()


def test_a_text_is_read_with_the_position_ids_of_its_task() -> None:
    symbols = "0123456789+="
    experiment = Experiment(
        task={"name": "arithmetic"},
        model=used(**SIZES, architecture="transformer", positions="relative"),
    )
    task, vocabulary = task_of(experiment), WordVocabulary(symbols, "characters")
    model = build_model(experiment, len(vocabulary))
    flat = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(5))
    trained = TrainedModel(model, model.layout.views(flat), vocabulary, task)
    example = [BOS, *vocabulary.encode("12+34=640"), EOS]
    batch = task.batch(np.array([example], np.int32))
    expected = predictions(model, trained.parameters, batch)[0].double().log_softmax(-1)
    reading = read_prompt(trained, "12+34=")
    for place, token in enumerate(example[-4:]):
        found = reading.log_probabilities
        torch.testing.assert_close(found, expected[place], rtol=0, atol=1e-5)
        reading = read_more(trained, reading, [token])
    other = read_prompt(trained, "1+234=").log_probabilities
    assert (other - read_prompt(trained, "12+34=").log_probabilities).abs().max() > 0.1
    with pytest.raises(UserError, match="depend on the whole question"):
        read_prompt(trained, "12+3")


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, USERS])
@settings(max_examples=10)
@given(text=st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=12))
def test_one_more_word_is_the_whole_text(architecture: str, text: list[str]) -> None:
    trained = shared_model(architecture)
    reading = begin(trained)
    for word in text:
        before = reading
        reading = read_more(trained, reading, trained.vocabulary.encode(word))
        assert before.tokens == reading.tokens[:-1]
    expected = at_once(trained, (BOS, *trained.vocabulary.encode(" ".join(text))))
    torch.testing.assert_close(
        reading.log_probabilities, expected.double().log_softmax(-1), rtol=0, atol=1e-9
    )
    whole = read_prompt(trained, " ".join(text))
    assert whole.tokens == reading.tokens
    torch.testing.assert_close(whole.log_probabilities, reading.log_probabilities)


def test_candidates_are_the_likeliest_words() -> None:
    trained = trained_model("transformer")
    reading = read_prompt(trained, "a b")
    shares = reading.log_probabilities.exp()
    words = shares[FIRST_WORD:]
    found = candidates(trained, reading, 3)
    expected = sorted(range(len(words)), key=lambda i: -float(words[i]))[:3]
    assert [c.word for c in found] == [WORDS[i] for i in expected]
    assert [c.probability for c in found] == pytest.approx([float(words[i]) for i in expected])
    everything = candidates(trained, reading, 1000)
    assert len(everything) == len(WORDS)
    total = sum(c.probability for c in everything) + float(shares[: OOV + 1].sum())
    assert total == pytest.approx(1)


def test_a_text_without_words_is_refused() -> None:
    with pytest.raises(UserError, match="no word in the text '12 !'"):
        read_prompt(trained_model("cifg"), "12 !")


def test_predictions_that_are_not_numbers_are_refused() -> None:
    trained = trained_model("cifg")
    trained.parameters["output.bias"][3] = float("nan")
    with pytest.raises(UserError, match="not numbers"):
        begin(trained)


def test_writing_is_a_function_of_the_seed() -> None:
    trained = trained_model("si_cifg")

    def text(seed: int, length: int = 9) -> tuple[int, ...]:
        start = begin(trained)
        return write_on(trained, start, length=length, temperature=1.0, most=None, seed=seed).tokens

    texts = {seed: text(seed) for seed in range(8)}
    again = text(3)
    assert again == texts[3]
    assert len(set(texts.values())) > 1
    assert all(token >= FIRST_WORD for tokens in texts.values() for token in tokens)
    # A longer text begins with the shorter one.
    longer = text(3, length=20)
    assert longer[: len(texts[3])] == texts[3]


def test_the_likeliest_alone_is_greedy() -> None:
    trained = trained_model("lstm")
    written = write_on(trained, begin(trained), length=6, temperature=0.7, most=1, seed=0).tokens
    tokens: tuple[int, ...] = (BOS,)
    for token in written:
        scores = at_once(trained, tokens)
        scores[[0, BOS, OOV]] = -torch.inf
        assert token == int(scores.argmax())
        tokens += (token,)


@pytest.mark.parametrize(("temperature", "most"), [(1.0, None), (0.5, None), (2.0, 3)])
def test_draws_have_the_models_shares(temperature: float, most: int | None) -> None:
    """Evenly spaced uniform numbers draw each id by its share; a wrong power would show."""
    scores = np.log([0.1, 0.1, 0.3, 0.1, 0.2, 0.15, 0.05])
    kept = [EOS, 4, 5, 6][:most]
    weights = np.exp(scores[kept]) ** (1 / temperature)
    draws = [_draw(scores / temperature, most, (i + 0.5) / 2000) for i in range(2000)]
    for token, weight in zip(kept, weights, strict=True):
        assert draws.count(token) / 2000 == pytest.approx(weight / weights.sum(), abs=2e-3)


def test_learned_positions_end_a_text() -> None:
    trained = trained_model("transformer", positions="learned", max_length=20)
    assert trained.model.longest == 20
    read_prompt(trained, "a " * 19)
    with pytest.raises(UserError, match="21 tokens is longer than the 20 learned"):
        read_prompt(trained, "a " * 20)
