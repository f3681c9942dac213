"""What DP-SGD on the devices costs: the local accounting of single examples.

Adjacency: one example of one client is added or removed. The sampling rate and the number of steps
are the experiment's, so they are the same for both, and how many examples a client has is protected
too. The guarantee is for the update that leaves the device, so it holds against the server; it says
nothing about the client as a whole.
"""

import warnings

from fedsi.data.batches import poisson_rate, poisson_steps
from fedsi.experiment import ClientSettings


def example_epsilon(settings: ClientSettings, nominal_examples: int, participations: int) -> float:
    """Return epsilon at ``example_delta`` of one client's examples, by opacus' RDP accountant.

    Args:
        settings: With ``example_noise_multiplier``.
        nominal_examples: As in ``poisson_batches``.
        participations: Rounds in which the client takes part.
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
