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
    asked: Ids
    """The clients that were drawn and are available; the others did not report in time."""

    @property
    def drawn(self) -> int:
        """Number of clients asked."""
        return len(self.asked)


def draw_cohort(
    experiment: Experiment, population: int, trace: Trace | None, round_number: int, seed: Seed
) -> Draw:
    """Draw a round's cohort, a pure function of the arguments.

    Except with uniform sampling, drawn clients that are unavailable are skipped without
    replacement. A cohort may be empty.

    Args:
        experiment: The configuration.
        population: Number of training clients.
        trace: The clients' availability, if the experiment has a trace.
        round_number: The round, from 1.
        seed: Seed of everything that decides who takes part: the experiment's, or a secret.
    """
    server = experiment.server
    available = available_in(experiment, population, trace, round_number, seed)
    size = server.cohort_size
    match server.sampling:
        case "uniform":
            asked = uniform_cohort(seed, round_number, available, clients_to_draw(experiment))
        case "poisson":
            drawn = poisson_cohort(seed, round_number, population, size, server.cohort_cap)
            asked = available.keep(drawn)
        case "allocated":
            asked = available.keep(allocated_cohort(seed, round_number, population, size))
        case "cyclic":
            groups = server.groups or 1
            asked = available.keep(cyclic_cohort(seed, round_number, population, size, groups))
        case "shuffled":
            apart = server.min_separation or 1
            asked = available.keep(shuffled_cohort(seed, round_number, population, size, apart))
    return Draw(reporting(experiment, population, asked, round_number, seed), asked)


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


def allocated_cohort(seed: Seed, round_number: int, population: int, size: int) -> Ids:
    """Draw from allocated passes of ``population // size`` rounds: each client is in one of them.

    In each pass every client draws its round uniformly and independently of the others, so the
    sizes of cohorts are binomial. (Cohorts of fixed size, cut from a shuffled pass, are not this:
    the other clients' places reveal a client's round.)

    Valid privacy accounting: random allocation of the Gaussian mechanism under add-or-remove
    adjacency (arXiv 2502.08202), with the sum of updates divided by the fixed expected size,
    ``population / (population // size)``. An unfinished pass costs as much as a whole one.

    Allocations are cached while their pass lasts.

    Returns:
        Client indices in random order; may be empty.
    """
    rounds_per_pass = population // size
    passes, turn = divmod(round_number - 1, rounds_per_pass)
    members = _allocation(seed, population, rounds_per_pass, passes)[turn]
    return members[generator(seed, Purpose.COHORT, round_number).permutation(len(members))]


def cyclic_cohort(seed: Seed, round_number: int, population: int, size: int, groups: int) -> Ids:
    """Draw a Poisson sample from one of the groups of clients, which take turns.

    Each client is in one of the groups, drawn uniformly once for the whole run and independently of
    the others. Round t includes each client of group ``(t - 1) mod groups`` independently with
    probability ``groups * size / population``.

    Valid privacy accounting: under add-or-remove adjacency, ``ceil(rounds / groups)`` rounds of the
    Poisson-subsampled Gaussian mechanism at that rate, also for banded noise of at most ``groups``
    bands (arXiv 2306.08153, theorem 4), with the sum of updates divided by the fixed ``size``.

    Returns:
        Client indices in random order; may be empty.
    """
    members = _grouped(seed, population, groups)[(round_number - 1) % groups]
    rng = generator(seed, Purpose.COHORT, round_number)
    drawn = int(rng.binomial(len(members), groups * size / population))
    return rng.choice(members, drawn, replace=False)


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
        UserError: A cohort, with over-selection, is larger than the population; the minimum
            separation is longer than a pass over all clients; or groups are smaller than cohorts.
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
    if server.groups is not None and server.groups > rounds_per_pass:
        raise UserError(
            f"server.groups = {server.groups} leaves {population / server.groups:.3g} of the "
            f"{population} training clients in a group, fewer than server.cohort_size = "
            f"{server.cohort_size}; choose fewer groups or a smaller cohort"
        )


@lru_cache(maxsize=2)
def _shuffled_window(
    seed: Seed, population: int, first: int, last: int, passes: int, window: int
) -> Ids:
    """Return the clients of the places ``first`` to ``last``, in the order of one pass."""
    rng = generator(seed, Purpose.COHORT, passes + 1, window)
    return _read_only(rng.permutation(_places(seed, population)[first:last]))


@lru_cache(maxsize=2)
def _allocation(seed: Seed, population: int, rounds: int, passes: int) -> tuple[Ids, ...]:
    """Return the clients of each round of a pass, in ascending order, ``[rounds]`` arrays."""
    return _split(generator(seed, Purpose.COHORT, passes + 1, 0), population, rounds)


@lru_cache(maxsize=2)
def _grouped(seed: Seed, population: int, groups: int) -> tuple[Ids, ...]:
    """Return the clients of each group, in ascending order, ``[groups]`` arrays."""
    return _split(generator(seed, Purpose.COHORT), population, groups)


def _split(rng: np.random.Generator, population: int, parts: int) -> tuple[Ids, ...]:
    """Assign each client to one of the parts, uniformly and independently."""
    part = rng.integers(parts, size=population)
    order = np.argsort(part, kind="stable").astype(np.int64)
    ends = np.cumsum(np.bincount(part, minlength=parts))[:-1]
    return tuple(_read_only(each) for each in np.split(order, ends))


@lru_cache(maxsize=2)
def _places(seed: Seed, population: int) -> Ids:
    """Return the permutation that assigns clients their places, ``[population]``."""
    return _read_only(generator(seed, Purpose.COHORT).permutation(population).astype(np.int64))


def _read_only(array: Ids) -> Ids:
    """Make a cached array read-only."""
    array.setflags(write=False)
    return array
