import numpy as np
import pytest

from fedsi.data import synthetic
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
