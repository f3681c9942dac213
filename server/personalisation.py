"""Personalisation of the final model: the gain of fine-tuning on held-out clients."""

import math
from collections.abc import Mapping

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedsi.experiment import Experiment
from fedsi.experiment.personalisation import tuning_settings
from fedsi.messages import Evaluated, Personalise, evaluated
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Task
from server.blocks import Job, answers, dealt
from server.nodes import Hosting
from server.replies import check_personalised
from server.runs.summary import PersonalisationSummary

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def personalise_clients(
    grid: Grid,
    hosting: Hosting,
    experiment: Experiment,
    parameters: NDArray[np.float32],
    clients: NDArray[np.int64],
    most_examples: int,
) -> PersonalisationSummary:
    """Fine-tune the global parameters on some clients, and return the gain.

    Clients without a reply count as not evaluated. The arguments are those of ``evaluate_clients``.
    """
    toml = experiment.to_toml()
    job = Job(
        name="the personalisation",
        clients=clients,
        request=lambda clients: Personalise(toml, parameters, clients),
        answer=Evaluated,
        check=lambda reply, clients: check_personalised(reply, experiment, clients, most_examples),
        timeout=experiment.server.round_timeout,
    )
    rows = np.full((len(clients), 2 * len(task_of(experiment).columns)), np.nan)
    for places, reply in answers(grid, dealt(grid, hosting, experiment, clients), job):
        rows[places] = reply.rows
    return summarise(experiment, rows)


def summarise(experiment: Experiment, rows: NDArray[np.float64]) -> PersonalisationSummary:
    """Summarise clients' counts before and after fine-tuning.

    Args:
        experiment: The configuration.
        rows: ``[clients, 2 * columns of the task]``: zeros for a client that is too small, NaN for
            one that failed.
    """
    task, settings = task_of(experiment), tuning_settings(experiment)
    there = rows[evaluated(rows)]
    scored = there[there[:, 0] > 0]
    before, after = np.hsplit(scored, 2)
    with np.errstate(all="ignore"):
        return PersonalisationSummary(
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            clients=len(scored),
            clients_too_small=len(there) - len(scored),
            clients_unevaluated=len(rows) - len(there),
            before=_finite(task.metrics(before)),
            after=_finite(task.metrics(after)),
            quantiles=_quantiles(task, before, after),
        )


def _quantiles(
    task: Task, before: NDArray[np.float64], after: NDArray[np.float64]
) -> dict[str, dict[str, float | None]]:
    """Return quantiles over clients of loss and score before and after, and of the gains."""
    found = {}
    for name, higher_is_better in (("loss", False), (task.score, task.higher_is_better)):
        first, second = (
            np.array([task.metrics(row[None])[name] for row in rows]) for rows in (before, after)
        )
        gain = second - first if higher_is_better else first - second
        for when, values in (("before", first), ("after", second), ("gain", gain)):
            found[f"{name}_{when}"] = _finite(
                {
                    f"{100 * q:g} %": float(np.quantile(values, q)) if len(values) else math.nan
                    for q in QUANTILES
                }
            )
    return found


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
