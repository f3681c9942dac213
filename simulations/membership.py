"""Membership inference: guessing from the model's loss which clients took part in training.

This is the attack of Yeom et al. (arXiv 1709.01604) on clients: those whose text the model predicts
better are guessed to have taken part. The attack is weak: leaks that it does not find may exist.
Held-out clients that write differently can be told apart even without any leak.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare_for
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.learning.block import BlockTrainer
from fedsi.tasks.task import FIRST_COLUMNS
from fedsi.threads import torch_threads
from server.cohorts.availability import read_trace
from server.cohorts.canaries import with_canaries
from server.cohorts.sampling import draw_cohort
from server.runs.folder import RunFolder

MOST_CLIENTS = 500
"""Most clients of each kind that are evaluated."""

_FEWEST = 10
"""Fewest clients of each kind: the formula of the standard error gives 0 where one has one."""

Losses = NDArray[np.float64]


@dataclass(frozen=True)
class Membership:
    """Success of an attack at separating the two kinds of clients."""

    members: int
    """Number of evaluated clients that took part in training."""
    others: int
    """Number of evaluated held-out clients."""
    auc: float
    """Probability that a client that took part has the lower loss; 0.5 is a random guess."""
    auc_error: float
    """Standard error of ``auc``."""
    advantage: float
    """Largest difference between true and false positive rate over all thresholds."""
    loss_gap: float
    """Mean loss of the others minus that of the members, in nats per token."""

    @property
    def has_enough(self) -> bool:
        """Whether there are enough clients of each kind for a share of them to mean something."""
        return min(self.members, self.others) >= _FEWEST


def membership_of(run: RunFolder, cache: Path) -> Membership | None:
    """Attack a finished run's model; None if it is unknown who took part (secure noise).

    Raises:
        UserError: The run is not finished, its files are damaged, its corpus has changed, or it has
            no held-out clients.
    """
    experiment, summary = run.experiment(), run.summary()
    if summary is None:
        raise UserError(f"{run.path} holds no finished run; finish it with fedsi run --resume")
    if experiment.privacy.secure_noise:
        return None
    population = open_population(prepare_for(experiment, cache))
    description = population.description
    if description.corpus_sha256 != summary.corpus_sha256:
        raise UserError(
            f"the corpus {description.corpus} is not the one that {run.path} was trained on; run "
            "it again with --overwrite"
        )
    if not description.heldout_clients:
        raise UserError("the corpus has no held-out clients to compare with; hold out clients")
    trainer = BlockTrainer(experiment, population)
    flat = torch.cat([run.model()[name].flatten() for name in trainer.model.layout.shapes])
    heldout = description.training_clients + np.arange(description.heldout_clients)
    members = _participants(experiment, population, summary.rounds)
    return attack(*(_losses(trainer, flat, clients) for clients in (members, heldout)))


def attack(members: Losses, others: Losses) -> Membership:
    """Separate two kinds of clients by a threshold on their losses.

    Args:
        members: Losses of clients that took part, ``[clients]``.
        others: Losses of clients that did not, ``[clients]``.
    """
    ranks = stats.rankdata(np.concatenate([-members, -others]))
    n, m = len(members), len(others)
    auc = float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
    advantage = float(stats.ks_2samp(members, others, alternative="greater").statistic)
    return Membership(
        members=n,
        others=m,
        auc=auc,
        auc_error=_auc_error(auc, n, m),
        advantage=advantage,
        loss_gap=float(others.mean() - members.mean()),
    )


def _auc_error(auc: float, members: int, others: int) -> float:
    """Return the standard error of an AUC by Hanley and McNeil (Radiology 1982)."""
    both, either = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc) + (members - 1) * (both - auc**2) + (others - 1) * (either - auc**2)
    ) / (members * others)
    return math.sqrt(max(variance, 0.0))


def _participants(experiment: Experiment, population: Population, rounds: int) -> NDArray[np.int64]:
    """Return the clients that took part, by drawing all cohorts again."""
    size, trace = population.description.training_clients, experiment.devices.trace
    read = None if trace is None else read_trace(Path(trace), population.find, size)
    everyone = with_canaries(experiment, size)
    drawn = [
        draw_cohort(experiment, everyone, read, r + 1, experiment.seed).reporting
        for r in range(rounds)
    ]
    clients = np.unique(np.concatenate(drawn))
    return clients[clients < size]


def _losses(trainer: BlockTrainer, parameters: torch.Tensor, clients: NDArray[np.int64]) -> Losses:
    """Return each client's loss per token; clients without text are left out."""
    step = max(1, len(clients) // MOST_CLIENTS)
    with torch_threads(1):  # the same losses however many cores there are
        rows = trainer.evaluate(parameters, clients[::step][:MOST_CLIENTS].tolist())
    tokens, loss = (rows[:, FIRST_COLUMNS.index(name)] for name in ("tokens", "loss"))
    per_token: Losses = loss[tokens > 0] / tokens[tokens > 0]
    return per_token
