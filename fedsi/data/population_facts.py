"""Facts about a corpus that a user wants to know before training on it."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsi.data.baselines import NAMES, Baselines, baselines
from fedsi.data.corpus import Progress
from fedsi.data.heldout import heldout_sample
from fedsi.data.population import load_array, read_meta
from fedsi.data.prepare import open_population
from fedsi.data.protocol import FIRST_WORD
from fedsi.data.synthetic import SAMPLED_CLIENTS, SyntheticPopulation


@dataclass(frozen=True)
class PopulationFacts:
    """Facts about a population."""

    values: dict[str, Any]
    """Values that JSON can represent; losses are in nats per token."""
    words_per_client: NDArray[np.int64]
    """Words of each client, or of a sample of synthetic clients, ``[clients]``."""


def population_facts(
    folder: Path, evaluation_clients: int, cache: Path, progress: Progress
) -> PopulationFacts:
    """Describe a population that ``prepare`` made.

    Args:
        folder: The population's folder.
        evaluation_clients: Held-out clients that a run evaluates, and n-gram models here.
        cache: A folder that caches the n-gram models' scores.
        progress: Called to report progress.

    Raises:
        UserError: The folder holds no valid population.
    """
    population = open_population(folder)
    description = population.description
    values = asdict(description) | read_meta(folder).get("statistics", {})
    clients = heldout_sample(description, evaluation_clients)
    scores = baselines(population, clients, cache, progress)
    values["ngrams"] = [_facts_of(scores, name) for name in NAMES]
    values["ngram_heldout_clients"] = len(clients)
    values["ngram_heldout_tokens"] = int(scores.rows[NAMES[0]][:, 0].sum())
    if not isinstance(population, SyntheticPopulation):
        return PopulationFacts(values, load_array(folder, "client_words")[:])
    first = description.training_clients
    heldout = range(first, first + min(description.heldout_clients, SAMPLED_CLIENTS))
    values["best_possible_loss"] = population.best_loss(heldout)
    sampled = range(min(description.training_clients, SAMPLED_CLIENTS))
    words = [int((population.examples(client) >= FIRST_WORD).sum()) for client in sampled]
    return PopulationFacts(values, np.array(words))


def _facts_of(scores: Baselines, name: str) -> dict[str, Any]:
    loss = scores.loss(name)
    return {
        "model": name,
        "loss": _finite(loss),
        "perplexity": _finite(math.exp(loss)),
        "accuracy_no_oov_no_eos": _finite(scores.accuracy(name)),
        "recall_at_1": _finite(scores.recall_at_1(name)),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
