"""Which held-out clients a model is evaluated on, which of them choose and which report.

Held-out clients are taken in the order of a hash, so that fewer are a sample of more. In that
order they are validation and test clients by turns: a client is the one or the other however many
are evaluated.
"""

import numpy as np
from numpy.typing import NDArray

from fedsi.data.population import Description
from fedsi.data.splits import hash_order

Ids = NDArray[np.int64]


def heldout_sample(description: Description, most: int) -> Ids:
    """Return held-out clients, ascending: all, or a sample that is always the same.

    Args:
        description: Of the population.
        most: How many at most.
    """
    return np.sort(_in_order(description)[:most])


def are_test_clients(description: Description, clients: Ids) -> NDArray[np.bool_]:
    """Return which held-out clients are test clients; the others are validation clients."""
    test = _in_order(description)[1::2]
    return np.isin(clients, test)


def _in_order(description: Description) -> Ids:
    border = description.training_clients
    places = sorted(
        range(description.heldout_clients), key=lambda place: hash_order(f"held out {place}")
    )
    return border + np.array(places, np.int64)
