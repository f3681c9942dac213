"""Facts about a corpus that a user wants to know before training on it."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.data.corpus import Progress
from fedsi.data.ngrams import MOST_TOKENS, ngram_scores
from fedsi.data.population import load_array, read_meta
from fedsi.data.prepare import open_population
from fedsi.data.protocol import FIRST_WORD
from fedsi.data.synthetic import SAMPLED_CLIENTS, SyntheticPopulation

GENERATED_TOKENS = 1_000_000
"""Most tokens of synthetic clients to describe; fewer, because they are generated while reading."""


@dataclass(frozen=True)
class PopulationFacts:
    """Facts about a population."""

    values: dict[str, Any]
    """Values that JSON can represent; losses are in nats per token."""
    words_per_client: NDArray[np.int64]
    """Words of each client, or of a sample of synthetic clients, ``[clients]``."""


def population_facts(folder: Path, progress: Progress) -> PopulationFacts:
    """Describe a population that ``prepare`` made.

    Args:
        folder: The population's folder.
        progress: Called to report progress.

    Raises:
        UserError: The folder holds no valid population.
    """
    population = open_population(folder)
    description = population.description
    synthetic = isinstance(population, SyntheticPopulation)
    values = asdict(description) | read_meta(folder).get("statistics", {})
    scores = ngram_scores(population, GENERATED_TOKENS if synthetic else MOST_TOKENS, progress)
    values["ngrams"] = [
        {key: _finite(value) for key, value in asdict(score).items()} for score in scores.orders
    ]
    values["ngram_training_tokens"] = scores.training_tokens
    values["ngram_heldout_tokens"] = scores.heldout_tokens
    if not isinstance(population, SyntheticPopulation):
        return PopulationFacts(values, load_array(folder, "client_words")[:])
    first = description.training_clients
    heldout = range(first, first + min(description.heldout_clients, SAMPLED_CLIENTS))
    values["best_possible_loss"] = population.best_loss(heldout)
    sampled = range(min(description.training_clients, SAMPLED_CLIENTS))
    words = [int((population.examples(client) >= FIRST_WORD).sum()) for client in sampled]
    return PopulationFacts(values, np.array(words))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
