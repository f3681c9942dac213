"""Privacy cost of DP-SGD on the clients: local accounting of single examples.

Adjacency: one example of one client is added or removed. The sampling rate and the number of steps
come from the experiment and are the same for both, so the number of examples of a client is
protected too. The guarantee covers the update that leaves the client, so it holds against the
server. It says nothing about the client as a whole.
"""

import warnings

from fedsi.data.batches import poisson_rate, poisson_steps
from fedsi.experiment import ClientSettings


def example_epsilon(settings: ClientSettings, nominal_examples: int, participations: int) -> float:
    """Return epsilon at ``example_delta`` of one client's examples, by opacus' RDP accountant.

    Args:
        settings: Client settings with ``example_noise_multiplier``.
        nominal_examples: Same as in ``poisson_batches``.
        participations: Number of rounds in which the client takes part.
    """
    from opacus.accountants import RDPAccountant  # noqa: PLC0415  # takes seconds to import

    steps = poisson_steps(settings, nominal_examples) * participations
    if not steps:
        return 0.0
    if not settings.example_noise_multiplier:
        return float("inf")
    accountant = RDPAccountant()
    rate = poisson_rate(settings, nominal_examples)
    accountant.history = [(settings.example_noise_multiplier, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the best order is the largest or smallest tried
        return float(accountant.get_epsilon(settings.example_delta))
