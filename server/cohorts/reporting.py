"""Reporting in time: drop-outs, slow devices and over-selection.

After Bonawitz et al., "Towards Federated Learning at Scale" (arXiv 1902.01046): more clients are
drawn than are needed, and the round closes when enough of them have reported.

Drop-outs and devices' speeds do not depend on the data, so drop-outs and a time-out only thin the
cohort. Keeping the fastest clients does more: whether a client takes part then depends on who else
was drawn, and fast devices take part more often. Over-selection voids privacy amplification by
sampling.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.seeds import Purpose, Seed, generator

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


def clients_to_draw(experiment: Experiment) -> int:
    """Return the number of clients to draw for a cohort."""
    wanted = experiment.server.cohort_size * experiment.devices.over_selection
    # The product of 10 and 1.1 is slightly above 11 and must not become 12.
    return math.ceil(round(wanted, 6))


def reporting(
    experiment: Experiment, population: int, asked: Ids, round_number: int, seed: Seed
) -> Ids:
    """Return the clients that report in time, in the order in which they were drawn.

    With over-selection the fastest clients are kept, up to the cohort size; ties go to those drawn
    first.

    Args:
        experiment: The configuration.
        population: Number of training clients.
        asked: The clients that were drawn and are available.
        round_number: The round, from 1.
        seed: Seed of drop-outs and devices' speeds.
    """
    devices = experiment.devices
    rng = generator(seed, Purpose.REPORTING, round_number)
    asked = asked[rng.random(len(asked)) >= devices.dropout]
    durations = log_durations(experiment, population, asked, seed)
    if devices.timeout is not None:
        in_time = durations <= math.log(devices.timeout)
        asked, durations = asked[in_time], durations[in_time]
    if devices.over_selection > 1:
        first = np.argsort(durations, kind="stable")[: experiment.server.cohort_size]
        asked = asked[np.sort(first)]
    return asked


def log_durations(experiment: Experiment, population: int, clients: Ids, seed: Seed) -> Floats:
    """Return the logarithm of each device's duration, relative to the median, ``[clients]``.

    A device has the same speed in every round.
    """
    sigma = experiment.devices.speed_sigma
    if not sigma:
        return np.zeros(len(clients))
    return sigma * _speeds(seed, population)[clients]


@lru_cache(maxsize=2)
def _speeds(seed: Seed, population: int) -> Floats:
    """Return standard normal numbers, ``[population]``, drawn in the order of the clients."""
    return generator(seed, Purpose.DEVICE_SPEED).standard_normal(population)
