"""Selection of held-out clients for evaluation, and their split into validation and test clients.

Held-out clients are ordered by a hash, so a smaller selection is a sample of a larger one. In this
order they are validation and test clients in turn, so a client's role does not depend on how many
are evaluated.
"""

import numpy as np
from numpy.typing import NDArray

from fedsi.data.population import Description
from fedsi.data.splits import hash_order

Ids = NDArray[np.int64]


def heldout_sample(description: Description, most: int) -> Ids:
    """Return held-out clients, ascending: all, or a fixed sample.

    Args:
        description: The population's description.
        most: Largest number of clients.
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
