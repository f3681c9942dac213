"""Synthetic clients, generated on access from (seed, client) alone, with a known best loss.

A client has a mixture over topics (Dirichlet: the smaller its parameter, the more clients differ)
and a number of sentences (log-normal). A sentence has one topic. Each next word comes, with
probability ``BACKOFF``, from a Zipf distribution over the whole vocabulary, and otherwise from the
``SUCCESSORS`` words that follow the previous word in that topic. These words are computed by a
hash, so no table is stored. After every word the sentence ends with probability ``STOP``.

The generator's probabilities are known, and so is the loss that no model can beat on average: see
``SyntheticPopulation.best_loss``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedsi.data.population import Description, load_array, read_meta, write_meta
from fedsi.data.protocol import EOS, FIRST_WORD, PAD, Tokens, inputs_and_targets, pad_examples
from fedsi.data.unigram import Counts, target_counts, unigram_log_probabilities, unigram_loss
from fedsi.data.vocabulary import WordVocabulary
from fedsi.experiment import DataSettings
from fedsi.seeds import Purpose, generator, splitmix64

KIND = "synthetic"

TOPICS = 4
SUCCESSORS = 4
BACKOFF = 0.3
STOP = 0.08
MOST_SENTENCES = 1000
LONGEST_SENTENCE = 4096
"""Most words in a sentence; one in e^340 sentences would be longer."""
SAMPLED_CLIENTS = 200
"""Clients from which the description's sizes and unigram loss are estimated."""

_SUCCESSOR_PROBABILITIES = np.array([0.5, 0.25, 0.15, 0.1])

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Language:
    """The word probabilities shared by all clients.

    Args:
        words: Number of words.
    """

    words: int

    @cached_property
    def zipf(self) -> Floats:
        """The back-off distribution, ``[words]``."""
        weights = 1.0 / np.arange(1, self.words + 1)
        probabilities: Floats = weights / weights.sum()
        return probabilities

    @cached_property
    def _zipf_cumulative(self) -> Floats:
        return np.cumsum(self.zipf)

    def draw_backoff(self, uniform: Floats) -> Ids:
        """Map uniform numbers to words of the back-off distribution."""
        found = np.searchsorted(self._zipf_cumulative, uniform, side="right")
        return np.minimum(found, self.words - 1)

    def successor(self, topic: Ids, previous: Ids, rank: Ids) -> Ids:
        """Return the rank-th word after ``previous`` in ``topic``, favouring frequent words."""
        key = (topic * (self.words + 1) + previous) * SUCCESSORS + rank
        uniform = _hash_to_unit(key.astype(np.uint64))
        return np.minimum((self.words * uniform**2).astype(np.int64), self.words - 1)

    def probability(self, topic: Ids, previous: Ids, word: Ids) -> Floats:
        """Return P(word | previous, topic), given that the sentence continues."""
        total = BACKOFF * self.zipf[word]
        for rank, share in enumerate(_SUCCESSOR_PROBABILITIES):
            follows = self.successor(topic, previous, np.full_like(word, rank)) == word
            total = total + (1 - BACKOFF) * share * follows
        return total


class Traits(NamedTuple):
    """Parameters of the clients of a synthetic population."""

    seed: int
    topic_concentration: float
    median_examples: float
    examples_sigma: float


@dataclass
class SyntheticPopulation:
    """Clients generated on demand; only the description is stored.

    Args:
        description: Its numbers of clients bound the client index.
        traits: Parameters of the clients.
        unigram_log_probabilities: Unigram model of the training clients, estimated on a sample.
    """

    description: Description
    traits: Traits
    unigram_log_probabilities: Floats
    answers: None = None
    _language: Language = field(init=False)

    def __post_init__(self) -> None:
        self._language = Language(self.description.vocabulary_size - FIRST_WORD)

    def count(self, client: int) -> int:
        """Return how many examples a client has."""
        return self._size(generator(self.traits.seed, Purpose.SYNTHETIC_CLIENT, client=client))

    def examples(self, client: int, places: Ids | None = None) -> Tokens:
        """Return examples of a client as rows of the protocol; all its examples are generated."""
        clients = self.description.training_clients + self.description.heldout_clients
        if not 0 <= client < clients:
            raise IndexError(f"client {client} of {clients}")
        made = self._sentences(client)[0]
        return made if places is None else made[places]

    def work(self, client: int, example_cap: int | None) -> int:
        """Return the approximate number of target tokens in a client's first examples."""
        sentences = self.count(client)
        # The mean of a truncated geometric length, and the end of the sentence.
        words = (1 - (1 - STOP) ** self.description.sequence_length) / STOP
        return round(min(sentences, example_cap or sentences) * (words + 1))

    def vocabulary(self) -> WordVocabulary:
        """Return the vocabulary of the token ids: words without a meaning."""
        # The words hold digits, so only white space may split them.
        return WordVocabulary((f"word{rank}" for rank in range(self._language.words)), "spaces")

    def find(self, names: Sequence[str]) -> Ids:
        """Return the index of each client, which is its name; -1 for other names."""
        clients = self.description.training_clients + self.description.heldout_clients
        return np.array([_index(name, clients) for name in names], dtype=np.int64)

    def names(self) -> list[str]:
        """Return the names of all clients, which are their indices."""
        clients = self.description.training_clients + self.description.heldout_clients
        return [str(client) for client in range(clients)]

    def best_loss(self, clients: range) -> float:
        """Return the loss of the true generator on some clients, in nats per token.

        The generator knows each sentence's topic; on average no model has a lower loss.
        """
        total, tokens = 0.0, 0
        for client in clients:
            examples, topics = self._sentences(client)
            previous, targets = inputs_and_targets(examples)
            mask = targets != PAD
            rows = np.nonzero(mask)[0]
            losses = self._losses(topics[rows], previous[mask], targets[mask])
            total += float(losses.sum())
            tokens += len(losses)
        return total / tokens

    def _losses(self, topics: Ids, previous: Tokens, targets: Tokens) -> Floats:
        first = previous < FIRST_WORD
        before = np.where(first, self._language.words, previous - FIRST_WORD).astype(np.int64)
        ends = targets == EOS
        word = np.where(ends, 0, targets - FIRST_WORD).astype(np.int64)
        go_on = np.where(first, 1.0, 1.0 - STOP)
        chance = np.where(ends, STOP, go_on * self._language.probability(topics, before, word))
        return -np.log(chance)

    def _sentences(self, client: int) -> tuple[Tokens, Ids]:
        """Return the examples and the topic of each."""
        rng = generator(self.traits.seed, Purpose.SYNTHETIC_CLIENT, client=client)
        length = self.description.sequence_length
        sentences = self._size(rng)
        mixture = rng.dirichlet(np.full(TOPICS, self.traits.topic_concentration))
        topics = rng.choice(TOPICS, sentences, p=mixture)
        lengths = np.minimum(rng.geometric(STOP, sentences), length)
        uniform = rng.random((3, length, sentences))
        longest = int(lengths.max())
        words = np.empty((sentences, longest), dtype=np.int32)
        previous = np.full(sentences, self._language.words, dtype=np.int64)
        cumulative = np.cumsum(_SUCCESSOR_PROBABILITIES)[:-1]
        for position in range(longest):
            back, which, zipf = uniform[:, position]
            rank = np.searchsorted(cumulative, which, side="right")
            follower = self._language.successor(topics, previous, rank)
            previous = np.where(back < BACKOFF, self._language.draw_backoff(zipf), follower)
            words[:, position] = FIRST_WORD + previous
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        flat = words[np.arange(longest) < lengths[:, None]]
        return pad_examples(flat, starts, length), topics

    def _size(self, rng: np.random.Generator) -> int:
        """Draw a client's number of examples: the first draw from its generator."""
        drawn = self.traits.median_examples * np.exp(self.traits.examples_sigma * rng.normal())
        return int(np.clip(round(drawn), 1, MOST_SENTENCES))


def open_synthetic(folder: Path) -> SyntheticPopulation:
    """Open a population that ``write_synthetic`` made."""
    meta = read_meta(folder)
    description, traits = Description(**meta["description"]), Traits(**meta["traits"])
    return SyntheticPopulation(description, traits, load_array(folder, "unigram")[:])


def make_synthetic(data: DataSettings) -> SyntheticPopulation:
    """Make a synthetic population; sizes and unigram model are estimated on a sample.

    Args:
        data: ``data.population`` clients, at least 2; at least one of them is held out.
    """
    clients = data.population
    traits = Traits(
        data.population_seed, data.topic_concentration, data.median_examples, data.examples_sigma
    )
    heldout = min(max(1, round(clients * data.heldout_fraction)), clients - 1)
    words, length = data.vocabulary_size, data.sequence_length
    settings = (KIND, TOPICS, SUCCESSORS, BACKOFF, STOP, words, length, clients, *traits)
    content = sha256(repr(settings).encode()).hexdigest()
    blank = Description(
        corpus=KIND,
        corpus_sha256=content,
        content_digest=content,
        training_clients=clients - heldout,
        heldout_clients=heldout,
        training_examples=0,
        heldout_examples=0,
        vocabulary_size=words + FIRST_WORD,
        vocabulary_source=KIND,
        sequence_length=length,
        unigram_loss=0.0,
    )
    population = SyntheticPopulation(blank, traits, np.zeros(blank.vocabulary_size))
    sampled = range(min(SAMPLED_CLIENTS, clients - heldout))
    first = clients - heldout
    unseen = range(first, first + min(SAMPLED_CLIENTS, heldout))
    size = blank.vocabulary_size
    examples, counts = _count(population, sampled, size)
    unseen_examples, unseen_counts = _count(population, unseen, size)
    unigram = unigram_log_probabilities(counts)
    values = blank.__dict__ | {
        "training_examples": round(examples / len(sampled) * (clients - heldout)),
        "heldout_examples": round(unseen_examples / len(unseen) * heldout),
        "unigram_loss": unigram_loss(unigram, unseen_counts),
    }
    return SyntheticPopulation(Description(**values), traits, unigram)


def _count(population: SyntheticPopulation, clients: range, size: int) -> tuple[int, Counts]:
    """Return the number of examples of some clients, and the count of each id as a target."""
    examples, counts = 0, np.zeros(size, np.int64)
    for client in clients:
        rows = population.examples(client)
        examples += len(rows)
        counts += target_counts(rows, size)
    return examples, counts


def write_synthetic(folder: Path, population: SyntheticPopulation) -> None:
    """Write the folder of the population."""
    write_meta(
        folder,
        KIND,
        population.description,
        population.unigram_log_probabilities,
        traits=population.traits._asdict(),
    )


def _index(name: str, clients: int) -> int:
    """Return the index of a client, -1 for a name that is not a client's id."""
    sound = name.isascii() and name.isdecimal() and len(name) <= len(str(clients))
    index = int(name) if sound else clients
    return index if index < clients and str(index) == name else -1


def _hash_to_unit(key: NDArray[np.uint64]) -> Floats:
    """Map integers to [0, 1) by their hashes."""
    return (splitmix64(key) >> np.uint64(11)).astype(np.float64) * 2.0**-53
