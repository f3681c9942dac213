"""What DP-SGD on the devices costs: the local accounting of single examples.

One example of one client is added or removed; how many it has counts as known. The guarantee is for
the update that leaves the device, so it holds against the server too; it says nothing about the
client as a whole.
"""

import warnings

from fedsi.data.batches import poisson_steps
from fedsi.experiment import ClientSettings


def example_epsilon(settings: ClientSettings, examples: int, participations: int) -> float:
    """Return epsilon at ``example_delta`` of one client's examples, by opacus' RDP accountant.

    Args:
        settings: With ``example_noise_multiplier``.
        examples: Examples that the client draws its batches from, at least 1.
        participations: Rounds in which it takes part.
    """
    from opacus.accountants import RDPAccountant  # noqa: PLC0415  # takes seconds to import

    if not settings.example_noise_multiplier:
        return float("inf")
    accountant = RDPAccountant()
    rate = min(1.0, settings.batch_size / examples)
    steps = poisson_steps(settings, examples) * participations
    accountant.history = [(settings.example_noise_multiplier, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is the largest or smallest tried
        return float(accountant.get_epsilon(settings.example_delta))


def largest_example_epsilon(
    settings: ClientSettings, fewest: int, most: int, participations: int
) -> float:
    """Return the largest ``example_epsilon`` of any client with between fewest and most examples.

    Among clients that take equally many steps the one with the fewest examples pays most, for each
    of its batches holds the largest share of them; so only the least of each number of steps are
    tried.
    """
    size = settings.batch_size
    first = fewest // size * size + 1
    least = [fewest, *(n for n in range(first, most + 1, size) if n > fewest)]
    return max(example_epsilon(settings, examples, participations) for examples in least)
