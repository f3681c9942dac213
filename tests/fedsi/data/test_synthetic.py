from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsi.data import synthetic
from fedsi.data.prepare import open_population, prepare
from fedsi.data.protocol import EOS, FIRST_WORD, PAD
from fedsi.data.synthetic import Language, SyntheticPopulation, make_synthetic
from fedsi.experiment import DataSettings


@pytest.fixture(scope="module")
def population() -> SyntheticPopulation:
    return make_synthetic(
        DataSettings(
            corpus="synthetic",
            population=400,
            heldout_fraction=0.25,
            vocabulary_size=60,
            sequence_length=12,
        )
    )


def test_clients_are_generated_from_their_number_alone(population: SyntheticPopulation) -> None:
    other = SyntheticPopulation(population.description, population.traits, np.zeros(64))
    backwards = [other.examples(k) for k in reversed(range(20))][::-1]
    for client, examples in enumerate(backwards):
        assert np.array_equal(population.examples(client), examples)
    assert not np.array_equal(backwards[0], backwards[1])
    with pytest.raises(IndexError):
        population.examples(400)


def test_work_is_estimated_without_generating_a_client(population: SyntheticPopulation) -> None:
    clients = range(100)
    targets = [int((population.examples(k)[:, 1:] != PAD).sum()) for k in clients]
    work = [population.work(k, None) for k in clients]
    assert np.corrcoef(targets, work)[0, 1] > 0.95
    assert 0.8 < sum(targets) / sum(work) < 1.25
    assert population.work(0, 1) == population.work(1, 1) <= min(work)


def test_a_client_is_found_by_its_number(population: SyntheticPopulation) -> None:
    names = ["399", "0", "12", "400", "-1", "012", "1.0", "", " 3", "٣", "9" * 5000, "x"]
    assert population.find(names).tolist() == [399, 0, 12] + [-1] * 9
    assert population.find([]).dtype == np.int64


def test_probabilities_sum_to_one() -> None:
    language = Language(60)
    every = np.arange(60)
    for topic in range(synthetic.TOPICS):
        for previous in (0, 17, 60):
            given = np.full(60, previous)
            total = language.probability(np.full(60, topic), given, every).sum()
            assert total == pytest.approx(1.0, abs=1e-12)


def test_words_come_with_the_probabilities_that_are_claimed(
    population: SyntheticPopulation,
) -> None:
    # The first words of one topic's sentences against P(word | start, topic), by chi-square.
    language = population._language
    counts = np.zeros(60)
    for client in range(400):
        examples, topics = population._sentences(client)
        np.add.at(counts, examples[topics == 0, 1] - FIRST_WORD, 1)
    start = np.full(60, 60)
    expected = counts.sum() * language.probability(
        np.zeros(60, dtype=np.int64), start, np.arange(60)
    )
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert counts.sum() > 2000
    assert 30 < statistic < 110  # 59 degrees of freedom: outside with probability below 1e-3
    wrong = np.roll(expected, 1)
    assert ((counts - wrong) ** 2 / wrong).sum() > 1000


def test_sentences_end_at_the_claimed_rate(population: SyntheticPopulation) -> None:
    rows = np.concatenate([population.examples(k) for k in range(400)])
    words = (rows[:, 1:] >= FIRST_WORD).sum()
    # A full sentence shows no end, and only its last word could have been followed by one.
    full = (rows[:, -1] >= FIRST_WORD).sum()
    ends = (rows == EOS).sum()
    rate = ends / (words - full)
    sigma = np.sqrt(synthetic.STOP * (1 - synthetic.STOP) / (words - full))
    assert abs(rate - synthetic.STOP) < 4 * sigma


def test_no_bigram_model_beats_the_best_loss(population: SyntheticPopulation) -> None:
    """The best bigram model in hindsight knows the test data, but not the topic."""
    clients = range(300, 400)
    rows = np.concatenate([population.examples(k) for k in clients])
    previous, targets = rows[:, :-1].ravel(), rows[:, 1:].ravel()
    pairs = np.zeros((64, 64))
    np.add.at(pairs, (previous[targets != PAD], targets[targets != PAD]), 1)
    unigram = pairs.sum(0) / pairs.sum()
    unigram_loss = -(pairs.sum(0) * np.log(np.where(unigram, unigram, 1))).sum() / pairs.sum()
    best = population.best_loss(clients)
    assert best < unigram_loss - 0.5
    assert best < population.description.unigram_loss - 0.5


def test_mixtures_differ_between_clients(population: SyntheticPopulation) -> None:
    shares = [np.mean(population._sentences(k)[1] == 0) for k in range(100)]
    assert np.std(shares) > 0.2


def traits_of(clients: int, **settings: Any) -> SyntheticPopulation:
    options: dict[str, Any] = {"vocabulary_size": 60, "sequence_length": 2, "population": clients}
    return make_synthetic(DataSettings(corpus="synthetic", **options | settings))


@pytest.mark.parametrize(("median", "sigma"), [(40, 0.7), (90, 0.3)])
def test_sizes_are_log_normal(median: float, sigma: float) -> None:
    clients = 3000
    population = traits_of(clients, median_examples=median, examples_sigma=sigma)
    sizes = np.log([len(population.examples(k)) for k in range(clients)])
    mean, spread = sizes.mean(), sizes.std()
    # Four standard errors; the rounding to whole sentences is far below them.
    assert abs(mean - np.log(median)) < 4 * sigma / np.sqrt(clients)
    assert abs(spread - sigma) < 4 * sigma / np.sqrt(2 * clients)
    standard = np.sort((sizes - np.log(median)) / sigma)
    normal = np.array([0.5 * (1 + erf(z / np.sqrt(2))) for z in standard])
    distance = np.abs(normal - (np.arange(clients) + 0.5) / clients).max()
    # Kolmogorov and Smirnov: exceeded with probability 1e-3. Uniform sizes would be at 0.06.
    assert distance < 1.95 / np.sqrt(clients)


def test_without_spread_all_clients_have_the_median() -> None:
    population = traits_of(50, median_examples=17, examples_sigma=0)
    assert {len(population.examples(k)) for k in range(50)} == {17}


def test_sizes_stay_within_bounds() -> None:
    population = traits_of(300, median_examples=60, examples_sigma=4.0)
    sizes = [len(population.examples(k)) for k in range(300)]
    assert (min(sizes), max(sizes)) == (1, synthetic.MOST_SENTENCES)


@pytest.mark.parametrize("concentration", [0.05, 0.3, 2.0])
def test_clients_differ_as_the_concentration_says(concentration: float) -> None:
    clients, sentences = 800, 200
    population = traits_of(
        clients,
        median_examples=sentences,
        examples_sigma=0,
        topic_concentration=concentration,
    )
    counts = np.array(
        [
            np.bincount(population._sentences(k)[1], minlength=synthetic.TOPICS)
            for k in range(clients)
        ]
    )
    shares = counts / sentences
    np.testing.assert_allclose(shares.mean(0), 1 / 4, atol=4 * np.sqrt(3 / 16 / clients))
    # Dirichlet, and the draw of the sentences on top.
    variance = 3 / 16 / (4 * concentration + 1)
    variance += (3 / 16 - variance) / sentences
    found = ((shares - 1 / 4) ** 2).mean(1)
    error = found.std() / np.sqrt(clients)
    assert abs(found.mean() - variance) < 4 * error
    assert error < 0.05 * variance


def test_another_seed_is_another_population() -> None:
    one, same, other = (traits_of(5, population_seed=seed) for seed in (1, 1, 2))
    for client in range(5):
        assert np.array_equal(one.examples(client), same.examples(client))
        assert not np.array_equal(one.examples(client), other.examples(client))
    assert one.description.corpus_sha256 == same.description.corpus_sha256
    assert one.description.corpus_sha256 != other.description.corpus_sha256


def test_a_million_clients_are_not_generated_to_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[int] = []
    sentences = SyntheticPopulation._sentences

    def noted(self: SyntheticPopulation, client: int) -> Any:
        generated.append(client)
        return sentences(self, client)

    monkeypatch.setattr(SyntheticPopulation, "_sentences", noted)
    data = DataSettings(corpus="synthetic", population=1_000_000)
    folder = prepare(data, tmp_path)
    assert len(generated) == 2 * synthetic.SAMPLED_CLIENTS
    generated.clear()
    population = open_population(folder)
    description = population.description
    assert generated == []
    assert (description.training_clients, description.heldout_clients) == (900_000, 100_000)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    assert len(population.examples(999_999)) > 0
    assert population.find(["999999", "1000000"]).tolist() == [999_999, -1]
    assert generated == [999_999]
    # Median 40 and sigma 0.7 make 51 sentences a client on average.
    expected = 40 * np.exp(0.7**2 / 2) * 900_000
    assert description.training_examples == pytest.approx(expected, rel=0.2)
