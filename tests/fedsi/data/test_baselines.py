"""N-gram models on the clients and targets of an evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedsi.data.baselines import (
    COLUMNS,
    NAMES,
    Baselines,
    baselines,
)
from fedsi.data.ngrams import KneserNey, training_trigrams
from fedsi.data.prepare import open_population, prepare
from fedsi.data.protocol import FIRST_WORD, PAD, Tokens, lengths_of
from fedsi.experiment import Experiment


def slow(model: KneserNey, examples: Tokens) -> list[float]:
    """Return the counts on a client's examples, target by target."""
    row = [0.0] * len(COLUMNS)
    for example in examples:
        padded = [PAD, *example[: lengths_of(example[None])[0]]]
        for place in range(2, len(padded)):
            gram = np.array([padded[place - 2 : place + 1]])
            likeliest, likeliest_word = model.predictions(gram)[0]
            is_word = padded[place] >= FIRST_WORD
            row[0] += 1
            row[1] -= np.log(model.probabilities(gram)[0])
            row[2] += is_word
            row[3] += is_word and likeliest == padded[place]
            row[4] += is_word and likeliest_word == padded[place]
    return row


def test_they_count_each_target_of_each_client(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedsi.data.baselines.MOST_GENERATED_TOKENS", 20_000)
    population = open_population(prepare(smoke.data, cache))
    clients = population.description.training_clients + np.arange(1)
    found = baselines(population, clients, tmp_path)
    training = training_trigrams(population, 20_000)
    for name, order in (("bigram", 2), ("trigram", 3)):
        model = KneserNey(training, order, population.description.vocabulary_size)
        rows = [slow(model, population.examples(client)) for client in clients.tolist()]
        assert found.rows[name] == pytest.approx(np.array(rows))
    tokens = found.rows["unigram"][:, 0].sum()
    assert found.rows["unigram"][:, 1].sum() / tokens == pytest.approx(found.loss("unigram"))
    # Counts are cached, and damaged ones are counted again.
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    assert baselines(population, clients, tmp_path).loss("bigram") == found.loss("bigram")
    kept.write_text(json.dumps({"unigram": []}))
    baselines(population, clients, tmp_path)
    assert kept.read_bytes() == before


def test_some_clients_are_other_targets(smoke: Experiment, cache: Path) -> None:
    population = open_population(prepare(smoke.data, cache))
    clients = population.description.training_clients + np.arange(4)
    found = baselines(population, clients)
    assert found.rows["unigram"].shape == (4, len(COLUMNS))
    some = np.array([True, False, False, False])
    assert found.loss("trigram", some) == baselines(population, clients[:1]).loss("trigram")


def test_they_say_which_of_them_a_loss_is_better_than() -> None:
    rows = {
        name: np.array([[1.0, loss, 1.0, 0.0, 0.0]])
        for name, loss in zip(NAMES, (6, 5, 4), strict=True)
    }
    found = Baselines(np.array([0]), rows)
    assert found.better_than(3.9) == "better than the unigram, the bigram and the trigram model"
    assert (
        found.better_than(4.5) == "not better than the trigram model, better than the bigram model"
    )
    assert found.better_than(6.0) == "not better than the unigram model"
    assert found.better_than(None) == "not better than the unigram model"
    assert (found.loss("bigram"), found.accuracy("bigram")) == (5.0, 0.0)
