"""Counts of n-gram models on held-out clients, over the clients and targets of an evaluation.

A loss alone says little. Comparing it with a bigram model's loss on the same targets shows whether
a model is a useful language model.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.checksums import sealed, unsealed
from fedsi.data.corpus import Progress, silent
from fedsi.data.ngrams import KneserNey, Unigram, training_trigrams, trigrams_of
from fedsi.data.population import Population, client_blocks
from fedsi.data.protocol import FIRST_WORD, Tokens
from fedsi.data.synthetic import SyntheticPopulation
from fedsi.files import write_atomically

NAMES = ("unigram", "bigram", "trigram")
COLUMNS = ("tokens", "loss", "words", "hits", "word_hits")
"""Columns per client: targets, the sum of their losses in nats, word targets (no oov, no eos), and
the number of those predicted as the most likely of all ids, and as the most likely word."""
MOST_TOKENS = 5_000_000
"""Most training targets that are counted; this limits the memory to about 1 GB."""
MOST_GENERATED_TOKENS = 1_000_000
"""The same limit for synthetic clients, which are generated while reading."""
_FORMAT = 2

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Baselines:
    """Counts of reference models on all examples of some held-out clients.

    They are n-gram models, or rankings of labels without a loss, as
    ``fedsi.inference.label_baselines`` makes.
    """

    clients: Ids
    rows: Mapping[str, NDArray[np.float64]]
    """Counts by name of the model, ``[clients, COLUMNS]``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The models, in the order of reports."""
        return tuple(self.rows)

    @property
    def ranks_labels(self) -> bool:
        """Whether the models rank labels, and words are queries."""
        return NAMES[0] not in self.rows

    def loss(self, name: str, kept: NDArray[np.bool_] | None = None) -> float:
        """Return a model's loss in nats per target, on all clients or on some."""
        return self._ratio(name, "loss", "tokens", kept)

    def accuracy(self, name: str, kept: NDArray[np.bool_] | None = None) -> float:
        """Return the share of the words that are a model's most likely id of all."""
        return self._ratio(name, "hits", "words", kept)

    def recall_at_1(self, name: str) -> float:
        """Return the share of the words that are a model's most likely word."""
        return self._ratio(name, "word_hits", "words", None)

    def better_than(self, loss: float | None, score: float | None = None) -> str:
        """Compare a model on all clients with the others, in words.

        Args:
            loss: Its loss in nats per target; None for a run that diverged.
            score: The share of the queries whose first label is right, for rankings.
        """
        if self.ranks_labels:
            return self._more_right_than(score)
        beaten = [name for name in NAMES if loss is not None and loss < self.loss(name)]
        missed = [name for name in NAMES if name not in beaten]
        if not missed:
            return "better than the unigram, the bigram and the trigram model"
        return f"not better than the {missed[0]} model" + (
            f", better than the {beaten[-1]} model" if beaten else ""
        )

    def _more_right_than(self, score: float | None) -> str:
        """Compare a share of right first labels with those of rankings, in words."""
        told = {
            side: [
                f"{name} ({self.accuracy(name):.3f})"
                for name in self.names
                if (score is not None and score > self.accuracy(name)) == above
            ]
            for side, above in (("more", True), ("not more", False))
        }
        return ", ".join(
            f"{side} first labels right than {' and '.join(names)}"
            for side, names in told.items()
            if names
        )

    def _ratio(self, name: str, top: str, bottom: str, kept: NDArray[np.bool_] | None) -> float:
        rows = self.rows[name] if kept is None else self.rows[name][kept]
        sums = dict(zip(COLUMNS, rows.sum(axis=0).tolist(), strict=True))
        return sums[top] / sums[bottom] if sums[bottom] else float("nan")


def baselines(
    population: Population,
    clients: Ids,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Baselines:
    """Fit the models to the training clients and compute their counts on held-out ones.

    This is the only place that scores n-gram models, so that a run, a study and ``fedsi data
    describe`` have the same figures for the same held-out clients.

    Args:
        population: The clients.
        clients: The evaluated held-out clients.
        cache: A folder that caches results.
        progress: Called with the model being fitted.
    """
    kept = cache / f"ngrams-{_key(population, clients)}.json" if cache else None
    found = _read(kept) if kept else None
    if found is None:
        progress("fitting n-gram models", 0, len(NAMES))
        generated = isinstance(population, SyntheticPopulation)
        training = training_trigrams(
            population, MOST_GENERATED_TOKENS if generated else MOST_TOKENS
        )
        found = {}
        for place, name in enumerate(NAMES):
            found[name] = _rows(population, clients, training, order=place + 1)
            progress("fitting n-gram models", place + 1, len(NAMES))
        if kept:
            write_atomically(kept, sealed(found))
    shape = (len(clients), len(COLUMNS))
    return Baselines(
        clients, {name: np.array(found[name], np.float64).reshape(shape) for name in NAMES}
    )


def _rows(population: Population, clients: Ids, training: Tokens, order: int) -> list[list[float]]:
    unigram = np.exp(population.unigram_log_probabilities)
    size = population.description.vocabulary_size
    model = KneserNey(training, order, size) if order > 1 else Unigram(unigram)
    rows = []
    for client in clients.tolist():
        row = np.zeros(len(COLUMNS))
        for examples in client_blocks(population, client):
            row += _counts(model, trigrams_of(examples))
        rows.append(row.tolist())
    return rows


def _counts(model: KneserNey | Unigram, grams: Tokens) -> NDArray[np.float64]:
    """Return a model's counts, ``[COLUMNS]``, on trigrams ``[targets, 3]``."""
    targets = grams[:, -1]
    words = targets >= FIRST_WORD
    loss = -np.log(model.probabilities(grams)).sum()
    hits = (model.predictions(grams) == targets[:, None])[words].sum(axis=0)
    return np.array([len(targets), loss, words.sum(), *hits], np.float64)


def _key(population: Population, clients: Ids) -> str:
    description = population.description
    facts = (
        f"{_FORMAT} {description.corpus_sha256} {description.content_digest} "
        f"{description.vocabulary_size} {description.sequence_length} "
    )
    return sha256(facts.encode() + np.ascontiguousarray(clients).tobytes()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any] | None:
    """Return cached counts; None if there are none, or they are damaged."""
    try:
        found = unsealed(path.read_bytes())
        return {name: found[name] for name in NAMES}
    except (OSError, ValueError, KeyError, TypeError):
        return None
