"""N-gram models on the clients and targets of an evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedsi.data.baselines import NAMES, Baselines, baselines
from fedsi.data.ngrams import ngram_scores
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment


def test_on_all_clients_they_are_the_scores_of_the_corpus(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    population = open_population(prepare(smoke.data, cache))
    border = population.description.training_clients
    clients = border + np.arange(population.description.heldout_clients)
    found = baselines(population, clients, None, tmp_path)
    for score, name in zip(ngram_scores(population).orders, NAMES, strict=True):
        assert found.loss(name) == pytest.approx(np.log(score.perplexity))
        assert found.accuracy(name) == pytest.approx(score.accuracy)
    # Counts are cached, and damaged ones are counted again.
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    assert baselines(population, clients, None, tmp_path).loss("bigram") == found.loss("bigram")
    kept.write_text(json.dumps({"unigram": []}))
    baselines(population, clients, None, tmp_path)
    assert kept.read_bytes() == before


def test_fewer_examples_and_some_clients_are_other_targets(smoke: Experiment, cache: Path) -> None:
    population = open_population(prepare(smoke.data, cache))
    clients = population.description.training_clients + np.arange(4)
    found = baselines(population, clients, 3)
    assert found.rows["unigram"].shape == (4, 4)
    some = np.array([True, False, False, False])
    only = baselines(population, clients[:1], 3)
    assert found.loss("trigram", some) == only.loss("trigram")
    assert found.rows["bigram"][:, 0].max() <= 3 * (population.description.sequence_length + 1)


def test_they_say_which_of_them_a_loss_is_better_than() -> None:
    rows = {
        name: np.array([[1.0, loss, 1.0, 0.0]]) for name, loss in zip(NAMES, (6, 5, 4), strict=True)
    }
    found = Baselines(np.array([0]), rows)
    assert found.better_than(3.9) == "better than the unigram, the bigram and the trigram model"
    assert (
        found.better_than(4.5) == "not better than the trigram model, better than the bigram model"
    )
    assert found.better_than(6.0) == "not better than the unigram model"
    assert found.better_than(None) == "not better than the unigram model"
    assert found.to_json()["bigram"] == {"loss": 5.0, "accuracy": 0.0}
