"""Faults that an experiment injects into the training of clients.

A client's fault in a round is a pure function of (seed, round, client) and of the attempt if the
round is repeated. It happens where it would: the exception is raised, the process killed, the
update spoiled before it is added. What follows is left to the code that handles such clients.
"""

import os
import signal
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.learning.algorithms.algorithm import Contribution
from fedsi.seeds import Purpose, generator

HUGE = 1e9
"""L2 norm of a huge update."""
OVERTIME = 2.0
"""Duration of a slow client's training, in time limits for a reply."""


class InjectedFaultError(Exception):
    """The exception of a client with the fault ``raising``."""


def fault_of(experiment: Experiment, round_number: int, client: int, attempt: int = 0) -> str:
    """Return the key of a client's fault in a round, or nothing.

    Args:
        experiment: The configuration.
        round_number: The round, from 1.
        client: The client's index in the population.
        attempt: Earlier attempts of the round.
    """
    shares = experiment.faults.shares
    if not shares:
        return ""
    stream = generator(experiment.seed, Purpose.FAULT, round_number, client)
    place = stream.random(attempt + 1)[-1]
    for name, end in zip(shares, np.cumsum(list(shares.values())), strict=True):
        if place < end:
            return name
    return ""


def suffer_before_training(fault: str, timeout: float) -> None:
    """Let a fault happen that prevents a client's training.

    Args:
        fault: The fault's key.
        timeout: Time limit for a node's reply in seconds.
    """
    match fault:
        case "raising":
            raise InjectedFaultError("faults.raising")
        case "slow":
            time.sleep(OVERTIME * timeout)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)


def spoiled(fault: str, contribution: Contribution, update: NDArray[np.float32]) -> Contribution:
    """Return a contribution with the update that a fault leaves.

    Args:
        fault: The fault's key.
        contribution: The client's.
        update: Its update, ``[parameters]``.
    """
    match fault:
        case "not_a_number":
            update = np.full_like(update, np.nan)
        case "infinite":
            update = np.full_like(update, np.inf)
        case "zeros":
            update = np.zeros_like(update)
        case "wrong_shape":
            update = update[:-1]
        case "huge":
            norm = np.linalg.norm(update.astype(np.float64)) or 1.0
            update = (update * (HUGE / norm)).astype(np.float32)
        case _:
            return contribution
    return replace(contribution, update=update)
