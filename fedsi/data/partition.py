"""Re-partitioning of a corpus's text over other clients, to study heterogeneity.

Only training rows are re-partitioned. The held-out clients remain those of the corpus, so that
results under different partitions are comparable.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import DataSettings
from fedsi.seeds import Purpose, generator

Clients = NDArray[np.int32]


def partition(data: DataSettings, labels: NDArray[np.int32], clients: int) -> Clients:
    """Assign rows to clients.

    Args:
        data: ``data.partition`` selects the method, ``data.population_seed`` the partition.
        labels: The label of each row, numbered from 0, ``[rows]``.
        clients: Number of clients.

    Returns:
        The client of each row, ``[rows]``; some clients may get none.
    """
    rng = generator(data.population_seed, Purpose.PARTITION)
    if data.partition == "dirichlet":
        return _dirichlet(rng, labels, clients, data.partition_concentration)
    if data.partition == "power_law":
        return _power_law(rng, len(labels), clients, data.partition_exponent)
    return _dealt(rng, np.full(clients, 1 / clients), len(labels))


def _dirichlet(
    rng: np.random.Generator, labels: NDArray[np.int32], clients: int, concentration: float
) -> Clients:
    """Assign each label's rows by proportions from a symmetric Dirichlet distribution.

    After Yurochkin et al. (ICML 2019) and Li et al. (arXiv 2102.02079): a small concentration gives
    a label to few clients, a large one to all equally.
    """
    dealt = np.empty(len(labels), dtype=np.int32)
    by_label = np.argsort(labels, kind="stable")
    borders = np.searchsorted(labels[by_label], np.arange(labels.max(initial=-1) + 2))
    for first, last in pairwise(borders):
        gammas = rng.standard_gamma(concentration, clients)
        total = gammas.sum()
        # Very small gammas may all round to zero; one client then gets the whole label.
        shares = gammas / total if total > 0 else np.eye(clients)[rng.integers(clients)]
        dealt[by_label[first:last]] = _shuffled(rng, rng.multinomial(last - first, shares))
    return dealt


def _power_law(rng: np.random.Generator, rows: int, clients: int, exponent: float) -> Clients:
    """Assign rows at random to clients whose expected sizes fall as ``rank ** -exponent``."""
    weights = np.arange(1, clients + 1, dtype=np.float64) ** -exponent
    return _dealt(rng, weights / weights.sum(), rows)


def _dealt(rng: np.random.Generator, shares: NDArray[np.float64], rows: int) -> Clients:
    """Assign rows at random; the numbers per client are the shares, rounded to whole rows."""
    borders = np.rint(np.cumsum(shares) * rows).astype(np.int64)
    borders[-1] = rows
    return _shuffled(rng, np.diff(borders, prepend=0))


def _shuffled(rng: np.random.Generator, sizes: NDArray[np.int64]) -> Clients:
    return rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))
