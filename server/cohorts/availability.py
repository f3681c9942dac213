"""Availability of clients in a round: always, by a recorded trace, or by a daily rhythm.

The server does not control who is available, and the available clients are not a uniform draw from
the population. So privacy accounting must not assume amplification by sampling if devices come and
go, whatever the sampler.
"""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.files import read_text
from fedsi.seeds import Purpose, Seed, generator

DAY_SECONDS = 86_400.0
HEADER = ["client", "start", "end"]

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


class Available(Protocol):
    """The clients that can be reached in one round."""

    def sample(self, rng: np.random.Generator, size: int) -> Ids:
        """Draw available clients uniformly without replacement; all of them if there are fewer."""
        ...

    def keep(self, clients: Ids) -> Ids:
        """Return the available ones of some clients, in the given order."""
        ...


@dataclass(frozen=True)
class Everyone:
    """All clients are always available."""

    population: int

    def sample(self, rng: np.random.Generator, size: int) -> Ids:
        """Draw from all clients; the cost depends on ``size`` only."""
        return rng.choice(self.population, size, replace=False).astype(np.int64)

    def keep(self, clients: Ids) -> Ids:
        """Return the clients."""
        return clients


@dataclass(frozen=True)
class Listed:
    """The clients that a trace lists for a time, in ascending order."""

    clients: Ids

    def sample(self, rng: np.random.Generator, size: int) -> Ids:
        """Draw from the list."""
        return rng.choice(self.clients, min(size, len(self.clients)), replace=False)

    def keep(self, clients: Ids) -> Ids:
        """Return the clients that are listed."""
        return clients[np.isin(clients, self.clients)]


@dataclass(frozen=True)
class Diurnal:
    """Clients with a daily rhythm: a cosine with a period of 24 hours and a phase for each client.

    At time t client c is available with probability ``lowest + (highest - lowest) * (1 + cos(2 pi
    (t / day + phase(c)))) / 2``, independently of other clients and rounds. The phase represents a
    time zone: it is uniform over the day and the same in all rounds.
    """

    experiment: Experiment
    population: int
    round_number: int
    seed: Seed

    def sample(self, rng: np.random.Generator, size: int) -> Ids:
        """Draw by rejection: test candidates in random order until enough are available.

        The number of candidates suffices at the lowest probability, up to a chance of less than
        1e-17 (Chernoff) that the cohort is smaller than it could be. The cost does not grow with
        the population.
        """
        lowest = self.experiment.devices.lowest_availability
        candidates = math.ceil(min(self.population, (2 * size + 80) / lowest))
        drawn = rng.choice(self.population, candidates, replace=False).astype(np.int64)
        return self.keep(drawn)[:size]

    def keep(self, clients: Ids) -> Ids:
        """Draw the availability of each client."""
        rng = generator(self.seed, Purpose.AVAILABILITY, self.round_number)
        return clients[rng.random(len(clients)) < self.probabilities(clients)]

    def probabilities(self, clients: Ids) -> Floats:
        """Return the probability that each client is available, ``[clients]``."""
        devices = self.experiment.devices
        days = start_of(self.experiment, self.round_number) / DAY_SECONDS
        phases = _phases(self.seed, self.population)[clients]
        swing: Floats = (1 + np.cos(2 * np.pi * (days % 1 + phases))) / 2
        span = devices.highest_availability - devices.lowest_availability
        return devices.lowest_availability + span * swing


@dataclass(frozen=True)
class Trace:
    """A recording of the times at which clients were available.

    It repeats: after the largest end time it starts again from 0.
    """

    clients: Ids
    """The client of each interval, ``[intervals]``."""
    starts: Floats
    """Start of each interval in seconds, included, ``[intervals]``."""
    ends: Floats
    """End of each interval in seconds, excluded, ``[intervals]``."""
    period: float
    """Length in seconds: the largest end time in the file."""

    def at(self, seconds: float) -> Ids:
        """Return the clients available at a time, in ascending order."""
        now = seconds % self.period
        return np.unique(self.clients[(self.starts <= now) & (now < self.ends)])

    def sha256(self) -> str:
        """Return a hash of the recording, so that a run cannot be resumed with another one."""
        columns = (self.clients, self.starts, self.ends)
        return sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def start_of(experiment: Experiment, round_number: int) -> float:
    """Return the simulated start time of a round in seconds."""
    return (round_number - 1) * experiment.devices.round_seconds


def available_in(
    experiment: Experiment, population: int, trace: Trace | None, round_number: int, seed: Seed
) -> Available:
    """Return the clients that can be reached in a round.

    Args:
        experiment: The configuration.
        population: Number of training clients.
        trace: The recording, if the experiment has one.
        round_number: The round, from 1.
        seed: Seed of the daily rhythm.
    """
    if trace is not None:
        return Listed(trace.at(start_of(experiment, round_number)))
    if experiment.devices.availability == "diurnal":
        return Diurnal(experiment, population, round_number, seed)
    return Everyone(population)


def read_trace(path: Path, find: Callable[[Sequence[str]], Ids], training_clients: int) -> Trace:
    """Read a trace: a CSV file with the columns ``client,start,end`` (seconds).

    Intervals of held-out clients and of clients that are not in the corpus are left out.

    Args:
        path: The file.
        find: Returns the indices of clients, -1 for unknown ones.
        training_clients: Number of training clients; they have the smallest indices.

    Raises:
        UserError: The file is missing or malformed, or has no training client.
    """
    names, times = _read_intervals(path)
    distinct = list(dict.fromkeys(names))
    index = dict(zip(distinct, find(distinct).tolist(), strict=True))
    clients = np.array([index[name] for name in names], dtype=np.int64)
    kept = (clients >= 0) & (clients < training_clients)
    if not kept.any():
        raise UserError(
            f"the trace {path} names no training client of the corpus; its column client must hold "
            "the ids that clients have in the corpus"
        )
    period = float(times[:, 1].max())
    return Trace(clients[kept], times[kept, 0], times[kept, 1], period)


def _read_intervals(path: Path) -> tuple[list[str], Floats]:
    """Return the client ids and the ``[intervals, (start, end)]`` of a trace file."""
    names: list[str] = []
    times: list[tuple[float, float]] = []
    try:
        lines = csv.reader(read_text(path).splitlines())
        header = [name.strip() for name in next(lines, [])]
        if not set(HEADER) <= set(header):
            raise UserError(
                f"the trace {path} must begin with the line {','.join(HEADER)}; further columns "
                "may follow"
            )
        places = [header.index(name) for name in HEADER]
        for line in lines:
            if not any(map(str.strip, line)):
                continue
            interval = _interval(line, places)
            if interval is None or len(line) > len(header):
                raise UserError(
                    f"line {lines.line_num} of the trace {path} must be a client's id and two "
                    f"times in seconds with 0 <= start < end, not {','.join(line)!r}"
                )
            names.append(line[places[0]])
            times.append(interval)
    except OSError as error:
        raise UserError(f"cannot read the trace {path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the trace {path} is not a CSV file in UTF-8: {error}") from None
    if not names:
        raise UserError(f"the trace {path} has no line after its header; add client,start,end")
    return names, np.array(times)


def _interval(line: Sequence[str], places: Sequence[int]) -> tuple[float, float] | None:
    """Return start and end, or None for an invalid line."""
    try:
        client, start, end = (line[place] for place in places)
        first, last = float(start), float(end)
    except (IndexError, ValueError):
        return None
    return (first, last) if client and 0 <= first < last < math.inf else None


@lru_cache(maxsize=2)
def _phases(seed: Seed, population: int) -> Floats:
    """Return each client's phase in days, ``[population]``, drawn in the order of the clients."""
    return generator(seed, Purpose.AVAILABILITY).random(population)
