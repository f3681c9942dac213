"""N-gram models, the baselines that a neural language model has to beat.

The unigram model is the population's own. The bigram and the trigram model are smoothed by
interpolated Kneser-Ney with one fixed discount (Chen and Goodman, "An Empirical Study of Smoothing
Techniques for Language Modeling", 1998, section 2.7): an n-gram keeps its count minus the discount.
The probability removed goes to the model that is one word shorter, whose own counts are not
occurrences but the number of different words that precede it.

Models are fitted on training clients and scored on held-out ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsi.data.population import Population, client_blocks
from fedsi.data.protocol import EOS, FIRST_WORD, PAD, Tokens
from fedsi.data.splits import hash_order

DISCOUNT = 0.75
_LONGEST = 3
_FIRST_TARGET = EOS
"""Padding and beginnings of sentences are never predicted."""

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def training_trigrams(population: Population, most_tokens: int) -> Tokens:
    """Return the training clients' trigrams, ``[targets, 3]``.

    Args:
        population: The clients.
        most_tokens: Targets to read. Clients are read in a pseudorandom order, the last one partly.
    """
    parts, tokens = [], 0
    clients = range(population.description.training_clients)
    for client in sorted(clients, key=lambda client: hash_order(str(client))):
        for examples in client_blocks(population, client):
            parts.append(trigrams_of(examples))
            tokens += len(parts[-1])
            if tokens >= most_tokens:
                return np.concatenate(parts)[:most_tokens]
    return np.concatenate(parts)


def trigrams_of(examples: Tokens) -> Tokens:
    """Return every target with the two tokens before it; ``pad`` precedes ``bos``.

    Args:
        examples: ``[examples, sequence_length + 1]``.

    Returns:
        ``[targets, 3]``, the target last.
    """
    before = np.pad(examples, ((0, 0), (1, 0)), constant_values=PAD)
    stacked = np.stack([before[:, :-2], before[:, 1:-1], before[:, 2:]], axis=-1)
    found: Tokens = stacked[stacked[..., -1] != PAD]
    return found


@dataclass(frozen=True)
class Unigram:
    """The population's own unigram model.

    Args:
        ids: Probability of each token id, ``[vocabulary]``.
    """

    ids: Floats

    def probabilities(self, trigrams: Tokens) -> Floats:
        """Return the probability of each target, ``[targets]``."""
        found: Floats = self.ids[trigrams[:, -1]]
        return found

    def predictions(self, trigrams: Tokens) -> Ids:
        """Return the most likely id and the most likely word, ``[targets, 2]``."""
        return np.broadcast_to(_likeliest(self.ids), (len(trigrams), 2))


class KneserNey:
    """An interpolated Kneser-Ney model.

    Args:
        trigrams: The trigrams to count, ``[targets, 3]``; not empty.
        order: Words in an n-gram: 2 or 3.
        vocabulary_size: Number of token ids, special tokens included.
    """

    def __init__(self, trigrams: Tokens, order: int, vocabulary_size: int) -> None:
        if vocabulary_size**_LONGEST > np.iinfo(np.int64).max:
            raise ValueError(f"{vocabulary_size} token ids are too many to number their trigrams")
        self._size = vocabulary_size
        self._order = order
        counted = {order: np.unique(self._keys(trigrams), return_counts=True)}
        for length in range(order - 1, 0, -1):
            shorter = counted[length + 1][0] % vocabulary_size**length
            counted[length] = np.unique(shorter, return_counts=True)
        self._unigram = self._fit_unigram(*counted[1])
        self._levels: dict[int, _Level] = {}
        for length in range(2, order + 1):
            self._add_level(length, *counted[length])

    def probabilities(self, trigrams: Tokens) -> Floats:
        """Return the probability of each target given its context, ``[targets]``."""
        return self._probabilities(self._keys(trigrams), self._order)

    def predictions(self, trigrams: Tokens) -> Ids:
        """Return the most likely id and the most likely word in the context of each target.

        Ties go to the smallest id.

        Returns:
            ``[targets, 2]``.
        """
        return self._predictions(self._keys(trigrams) // self._size, self._order)

    def _keys(self, trigrams: Tokens) -> Ids:
        """Return a number for each n-gram; ``key // size`` is that of its context."""
        keys = np.zeros(len(trigrams), np.int64)
        for column in range(_LONGEST - self._order, _LONGEST):
            keys = keys * self._size + trigrams[:, column]
        return keys

    def _fit_unigram(self, ids: Ids, counts: Ids) -> Floats:
        unigram = np.zeros(self._size)
        targets = self._size - _FIRST_TARGET
        unigram[_FIRST_TARGET:] = DISCOUNT * len(ids) / counts.sum() / targets
        unigram[ids] += (counts - DISCOUNT) / counts.sum()
        return unigram

    def _add_level(self, length: int, grams: Ids, counts: Ids) -> None:
        contexts, context = np.unique(grams // self._size, return_inverse=True)
        totals = np.bincount(context, weights=counts)
        backoffs = DISCOUNT * np.bincount(context) / totals
        shorter = self._probabilities(grams % self._size ** (length - 1), length - 1)
        seen = (counts - DISCOUNT) / totals[context] + backoffs[context] * shorter
        level = _Level(grams, seen, contexts, backoffs, np.empty((len(contexts), 2), np.int64))
        self._levels[length] = level
        likeliest = self._predictions(contexts % self._size ** (length - 2), length - 1)
        for column, first in enumerate((_FIRST_TARGET, FIRST_WORD)):
            # N-grams not seen in a context are ordered as in the shorter context, so only the most
            # likely of those can be the most likely here.
            known = grams[grams % self._size >= first]
            candidates = np.concatenate([known, contexts * self._size + likeliest[:, column]])
            level.best[:, column] = self._best_of(candidates, length)

    def _best_of(self, candidates: Ids, length: int) -> Ids:
        """Return the most likely last token among each context's candidates, contexts sorted."""
        probabilities = self._probabilities(candidates, length)
        contexts = candidates // self._size
        ranked = np.lexsort((candidates, -probabilities, contexts))
        firsts = np.flatnonzero(np.diff(contexts[ranked], prepend=-1))
        return candidates[ranked[firsts]] % self._size

    def _probabilities(self, keys: Ids, length: int) -> Floats:
        if length == 1:
            return self._unigram[keys]
        level = self._levels[length]
        shorter = self._probabilities(keys % self._size ** (length - 1), length - 1)
        place, known = _find(level.contexts, keys // self._size)
        unseen = np.where(known, level.backoffs[place], 1.0) * shorter
        place, known = _find(level.grams, keys)
        return np.where(known, level.probabilities[place], unseen)

    def _predictions(self, contexts: Ids, length: int) -> Ids:
        if length == 1:
            return np.broadcast_to(_likeliest(self._unigram), (len(contexts), 2))
        shorter = self._predictions(contexts % self._size ** (length - 2), length - 1)
        level = self._levels[length]
        place, known = _find(level.contexts, contexts)
        return np.where(known[:, None], level.best[place], shorter)


@dataclass(frozen=True)
class _Level:
    """The observed n-grams of one length and their contexts, both sorted."""

    grams: Ids
    probabilities: Floats
    contexts: Ids
    backoffs: Floats
    """Factor of the shorter model's probability."""
    best: Ids
    """The most likely id and the most likely word, ``[contexts, 2]``."""


def _find(table: Ids, keys: Ids) -> tuple[Ids, NDArray[np.bool_]]:
    """Return the places of keys in a sorted table, and which keys it contains."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return place, table[place] == keys


def _likeliest(unigram: Floats) -> Ids:
    """Return the most likely id and the most likely word."""
    return np.array([unigram.argmax(), FIRST_WORD + unigram[FIRST_WORD:].argmax()])
