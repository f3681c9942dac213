"""Sampling of cohorts: a pure function of the experiment, a seed and the round.

Each sampler's docstring says which privacy accounting is valid for it. Amplification by sampling is
void if devices are not always available or more clients are drawn than needed; see
``server.cohorts.availability`` and ``server.cohorts.reporting``.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.seeds import Purpose, Seed, generator
from server.cohorts.availability import Available, Trace, available_in
from server.cohorts.reporting import clients_to_draw, reporting

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Draw:
    """A round's cohort."""

    reporting: Ids
    """The clients to train, in the order of their rows, ``[clients]``."""
    drawn: int
    """Number of clients asked; the others did not report in time."""


def draw_cohort(
    experiment: Experiment, population: int, trace: Trace | None, round_number: int, seed: Seed
) -> Draw:
    """Draw a round's cohort, a pure function of the arguments.

    With Poisson sampling and shuffled passes, drawn clients that are unavailable are skipped
    without replacement. A cohort may be empty.

    Args:
        experiment: The configuration.
        population: Number of training clients.
        trace: The clients' availability, if the experiment has a trace.
        round_number: The round, from 1.
        seed: Seed of everything that decides who takes part: the experiment's, or a secret.
    """
    server = experiment.server
    available = available_in(experiment, population, trace, round_number, seed)
    if server.sampling == "uniform":
        asked = uniform_cohort(seed, round_number, available, clients_to_draw(experiment))
    elif server.sampling == "poisson":
        asked = available.keep(
            poisson_cohort(seed, round_number, population, server.cohort_size, server.cohort_cap)
        )
    else:
        separation = server.min_separation or 1
        asked = available.keep(
            shuffled_cohort(seed, round_number, population, server.cohort_size, separation)
        )
    return Draw(reporting(experiment, population, asked, round_number, seed), len(asked))


def uniform_cohort(seed: Seed, round_number: int, available: Available, size: int) -> Ids:
    """Draw a cohort of fixed size uniformly without replacement from the available clients.

    The cost grows with the cohort, not with the population. Valid privacy accounting, if everyone
    is available: fixed-size sampling without replacement under replace-one adjacency; RDP with half
    the noise multiplier is a loose bound. This is not Poisson sampling and must not be accounted as
    such.

    Returns:
        Client indices in the order drawn, ``[size]``; fewer if fewer are available.
    """
    return available.sample(generator(seed, Purpose.COHORT, round_number), size)


def poisson_cohort(
    seed: Seed, round_number: int, population: int, size: int, cap: int | None
) -> Ids:
    """Include each client independently with probability ``size / population``.

    The number of clients is drawn from a binomial, then that many clients are drawn without
    replacement. This has the same distribution as a coin for each client, at the cost of a cohort.

    Valid privacy accounting: the Poisson-subsampled Gaussian mechanism (its privacy loss
    distribution) under add-or-remove adjacency, with the sum of updates divided by the fixed
    ``size``, never by the number drawn. With a cap, a larger draw is reduced to a uniformly chosen
    cohort of that size, and the accounting is that of truncated Poisson sampling.

    Returns:
        Client indices in random order; may be empty.
    """
    rng = generator(seed, Purpose.COHORT, round_number)
    drawn = int(rng.binomial(population, size / population))
    # A uniform subset of a uniform subset is uniform.
    kept = drawn if cap is None else min(drawn, cap)
    return rng.choice(population, kept, replace=False).astype(np.int64)


def shuffled_cohort(
    seed: Seed, round_number: int, population: int, size: int, min_separation: int
) -> Ids:
    """Draw from shuffled passes: each client once in a pass of R = population // size rounds.

    A permutation, fixed for the run, assigns the clients their places in a pass; the last
    ``population - R * size`` of them have none and never take part. A pass is divided into windows
    of ``R - min_separation + 1`` rounds (the last may be shorter), and each pass shuffles the
    clients of a window among its rounds. So from one pass to the next a client moves forward by at
    most ``R - min_separation`` rounds, and for two rounds x < y in which it takes part ``y - x >=
    min_separation``. With 1 the whole pass is shuffled.

    Valid privacy accounting: matrix mechanisms (tree aggregation, banded, BLT) with the
    participation schema "at least ``min_separation`` rounds apart, at most ceil(rounds / R) times".
    There is no amplification by sampling.

    Shuffles are cached while their window lasts, so a round costs as much as a cohort on average.

    Returns:
        Client indices in random order, ``[size]``.
    """
    rounds_per_pass = population // size
    width = rounds_per_pass - min_separation + 1
    passes, place = divmod(round_number - 1, rounds_per_pass)
    window, turn = divmod(place, width)
    first, last = window * width * size, min((window + 1) * width, rounds_per_pass) * size
    members = _shuffled_window(seed, population, first, last, passes, window)
    return members[turn * size : (turn + 1) * size]


def check_cohort_size(experiment: Experiment, population: int) -> None:
    """Refuse an experiment whose cohorts cannot be drawn.

    Args:
        experiment: The configuration.
        population: Number of training clients.

    Raises:
        UserError: A cohort, with over-selection, is larger than the population; or the minimum
            separation is longer than a pass over all clients.
    """
    server, wanted = experiment.server, clients_to_draw(experiment)
    if server.cohort_size > population:
        raise UserError(
            f"server.cohort_size = {server.cohort_size} is more than the {population} training "
            "clients of the corpus; choose a smaller cohort or a larger corpus"
        )
    if wanted > population:
        raise UserError(
            f"devices.over_selection = {experiment.devices.over_selection} draws {wanted} clients "
            f"for a cohort of {server.cohort_size}, more than the {population} training clients of "
            "the corpus; choose a smaller factor or cohort"
        )
    rounds_per_pass = population // server.cohort_size
    if server.min_separation is not None and server.min_separation > rounds_per_pass:
        raise UserError(
            f"server.min_separation = {server.min_separation} is more than the {rounds_per_pass} "
            f"rounds in which cohorts of {server.cohort_size} pass over the {population} training "
            "clients; choose a smaller separation or cohort"
        )


@lru_cache(maxsize=2)
def _shuffled_window(
    seed: Seed, population: int, first: int, last: int, passes: int, window: int
) -> Ids:
    """Return the clients of the places ``first`` to ``last``, in the order of one pass."""
    rng = generator(seed, Purpose.COHORT, passes + 1, window)
    return _read_only(rng.permutation(_places(seed, population)[first:last]))


@lru_cache(maxsize=2)
def _places(seed: Seed, population: int) -> Ids:
    """Return the permutation that assigns clients their places, ``[population]``."""
    return _read_only(generator(seed, Purpose.COHORT).permutation(population).astype(np.int64))


def _read_only(array: Ids) -> Ids:
    """Make a cached array read-only."""
    array.setflags(write=False)
    return array
