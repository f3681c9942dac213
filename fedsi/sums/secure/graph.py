"""The graph of a masked round: which clients share masks and hold each other's shares.

After Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead" (CCS 2020,
IACR ePrint 2020/704), SecAgg+: the participants stand on a circle in random order, and each is a
neighbour of the k / 2 before it and the k / 2 after it. In a complete graph, as in Bonawitz et al.
(arXiv 1611.04482), each of n clients needs n masks; here k grows like log n.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

DISHONEST, LOST = 0.1, 0.2
"""Share of clients that may collude with the server, and probability of dropping out."""
REVEALED, UNFINISHED = 2.0**-40, 2.0**-20
"""Largest probabilities that colluders unmask anyone, and that a round cannot be unmasked."""


def threshold(neighbours: int) -> int:
    """Return the number of shares that give a secret: more than two fifths of its holders.

    That is enough against colluding clients if the server is honest but curious. One that tells
    some clients that another dropped out, and others that it did not, needs a majority.
    """
    return 2 * (neighbours + 1) // 5 + 1


@lru_cache(maxsize=256)
def enough_neighbours(participants: int) -> int:
    """Return the smallest even number of neighbours that is safe, or that of a complete graph.

    Safe means, by a union bound over the participants, that with a probability of at most
    ``REVEALED`` the dishonest neighbours of any client reach the threshold, and with at most
    ``UNFINISHED`` the remaining neighbours of any client do not. Neighbours are a random subset of
    the others, so the number of dishonest ones is hypergeometric; each drops out independently.
    """
    from scipy.stats import binom, hypergeom  # noqa: PLC0415 - only for these rounds

    others = participants - 1
    dishonest = int(DISHONEST * participants)
    for k in range(2, others, 2):
        needed = threshold(k)
        colluding = participants * hypergeom.sf(needed - 1, others, dishonest, k)
        missing = participants * binom.sf(k - needed, k, LOST)
        if colluding <= REVEALED and missing <= UNFINISHED:
            return k
    return max(others, 0)


def neighbours_of(order: NDArray[np.int64], neighbours: int) -> dict[int, list[int]]:
    """Return each client's neighbours, ascending.

    Args:
        order: The clients in their order on the circle.
        neighbours: Number of neighbours: even, or one less than the number of clients.
    """
    clients, half = order.tolist(), neighbours // 2
    if neighbours >= len(clients) - 1:
        return {one: sorted(set(clients) - {one}) for one in clients}
    steps = [step for step in range(-half, half + 1) if step]
    return {
        one: sorted(clients[(place + step) % len(clients)] for step in steps)
        for place, one in enumerate(clients)
    }
