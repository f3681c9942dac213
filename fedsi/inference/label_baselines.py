"""Rankings of labels without training on a device: a keyword search, and the most frequent labels.

``BM25`` treats each label's text as a document and the query as keywords. With ``tf`` the number of
times that a word of the query occurs in a document of ``length`` words, ``n`` documents with it
among ``N``, and ``k1 = 1.2``, ``b = .75``, the score of a document sums over the query's words::

    log(1 + (N - n + .5) / (n + .5)) * tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
with a logarithm that cannot become negative.

``frequent labels`` ranks labels by how many training examples have them, whatever the query.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from fedsi.data.baselines import Baselines
from fedsi.data.corpus import Progress, silent
from fedsi.data.population import Population, client_blocks
from fedsi.data.protocol import FIRST_WORD, PAD, Tokens
from fedsi.tasks.task import Batch, Task

NAMES = ("frequent labels", "BM25")
K1, B = 1.2, 0.75

Scores = NDArray[np.float64]


def label_baselines(
    task: Task,
    population: Population,
    labels: Tokens,
    clients: NDArray[np.int64],
    progress: Progress = silent,
) -> Baselines:
    """Count how often the first label of each ranking is right on held-out clients.

    Args:
        task: The task, with the population's answers.
        population: The clients.
        labels: The labels' texts, ``[labels, time]``.
        clients: The evaluated held-out clients.
        progress: Called with the ranking being counted.
    """
    frequent = label_counts(population, len(labels))
    rankings: dict[str, Callable[[Tokens], Scores]] = {
        "frequent labels": lambda queries: np.broadcast_to(frequent, (len(queries), len(labels))),
        "BM25": Bm25(labels).scores,
    }
    rows = {}
    for done, (name, scores) in enumerate(rankings.items()):
        progress("ranking without a model", done, len(rankings))
        rows[name] = np.array([_counts(task, population, int(one), scores) for one in clients])
    return Baselines(clients, rows)


def _counts(
    task: Task, population: Population, client: int, scores: Callable[[Tokens], Scores]
) -> Scores:
    """Return a ranking's counts on a client in the order of ``baselines.COLUMNS``."""
    unigram = torch.tensor(population.unigram_log_probabilities)
    total = np.zeros(len(task.columns))
    for rows in client_blocks(population, client):
        batch = task.batch(rows)
        outputs = torch.from_numpy(np.array(scores(_queries(batch))))
        total += task.counts(outputs, batch, unigram)
    counted = dict(zip(task.columns, total.tolist(), strict=True))
    queries, hits = counted["tokens"], counted["found_at_1"]
    return np.array([queries, np.nan, queries, hits, hits])


def _queries(batch: Batch) -> Tokens:
    """Return the inputs of the rows that ask something, in the order of the outputs."""
    return batch.inputs[batch.asked.any(axis=1)]


def label_counts(population: Population, labels: int) -> Scores:
    """Return how many training examples have each label, ``[labels]``."""
    counts, answers = np.zeros(labels), population.answers
    if answers is None:
        return counts
    for client in range(population.description.training_clients):
        for rows in client_blocks(population, client):
            last = rows[np.arange(len(rows)), np.count_nonzero(rows != PAD, axis=1) - 1]
            right = answers[last - 1].ravel()
            counts += np.bincount(right[right >= 0], minlength=labels)
    return counts


class Bm25:
    """BM25 of labels' texts.

    Args:
        labels: Their token ids, ``[labels, time]``; special tokens are no words.
    """

    def __init__(self, labels: Tokens) -> None:
        words = int(labels.max(initial=0)) + 1
        counts = np.zeros((len(labels), words))
        np.add.at(counts, (np.arange(len(labels))[:, None], labels), labels >= FIRST_WORD)
        lengths = counts.sum(axis=1, keepdims=True)
        having = (counts > 0).sum(axis=0)
        weight = np.log1p((len(labels) - having + 0.5) / (having + 0.5))
        norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1))
        self._values: Scores = weight * counts * (K1 + 1) / (counts + norm)

    def scores(self, queries: Tokens) -> Scores:
        """Return scores, ``[queries, labels]``, for queries ``[queries, time]``."""
        words = self._values.shape[1]
        known = (queries >= FIRST_WORD) & (queries < words)
        counts = np.zeros((len(queries), words))
        places = np.arange(len(queries))[:, None]
        np.add.at(counts, (places, np.where(known, queries, 0)), known)
        result: Scores = counts @ self._values.T
        return result
