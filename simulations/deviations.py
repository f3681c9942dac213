"""Deviations of finished runs from a teacher's run, on the teacher's held-out clients."""

from collections.abc import Sequence

import numpy as np

from fedsi.data.batches import evaluation_batches
from fedsi.data.corpus import Progress
from fedsi.data.population import Population, client_blocks
from fedsi.errors import UserError
from fedsi.inference.deviations import LogOdds, likeliest_log_odds
from fedsi.tasks.table import task_on
from fedsi.threads import torch_threads
from server.rounds import evaluated_clients
from simulations.finished_run import FinishedRun

_BATCH = 64


def check_same_words(teacher: FinishedRun, other: FinishedRun) -> None:
    """Refuse a run whose probabilities are not of the teacher's words or of its task.

    Raises:
        UserError: It has another task or vocabulary.
    """
    tasks = [run.experiment.task for run in (teacher, other)]
    if tasks[0] != tasks[1]:
        raise UserError(
            f"{other.path} learned task.name={tasks[1].name} and {teacher.path} "
            f"task.name={tasks[0].name}, or with other keys task.*; name runs of one task"
        )
    if teacher.trained.vocabulary.file_text() != other.trained.vocabulary.file_text():
        raise UserError(
            f"{other.path} has another vocabulary than the teacher {teacher.path}, so their "
            "probabilities are of different words; train it with the same data.* keys"
        )


def log_odds_of_runs(
    teacher: FinishedRun,
    others: Sequence[FinishedRun],
    population: Population,
    most: int,
    progress: Progress,
) -> list[LogOdds]:
    """Return the log odds of the teacher's likeliest words at held-out positions.

    Clients are taken in the order of the teacher's evaluation until there are enough positions.

    Returns:
        Those of the teacher, and of each other run, ``[positions]`` each.

    Raises:
        UserError: A run has another task or vocabulary, or there are no positions.
    """
    for run in others:
        check_same_words(teacher, run)
    runs = [(run.trained.model, run.trained.parameters) for run in (teacher, *others)]
    task, found, number = task_on(teacher.experiment, population), list[list[LogOdds]](), 0
    with torch_threads(1):
        for client in evaluated_clients(teacher.experiment, population.description).tolist():
            if number >= most:
                break
            for rows in evaluation_batches(client_blocks(population, client), _BATCH):
                found.append(likeliest_log_odds(runs[0], runs[1:], task.batch(rows)))
                number += len(found[-1][0])
            progress("comparing positions", min(number, most), most)
    if not number:
        raise UserError(f"{teacher.path} has no held-out position; evaluate more clients")
    return [np.concatenate(one)[:most] for one in zip(*found, strict=True)]
