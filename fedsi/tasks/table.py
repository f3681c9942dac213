"""The table of tasks, the only list of their names."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.tasks.task import Task

TASKS = {"next_word": "fedsi.tasks.next_word"}
"""The module of each task, imported when the task is used; it ends with its ``TASK``."""


def task_of(experiment: "Experiment") -> "Task":
    """Return the task of an experiment."""
    task: Task = importlib.import_module(TASKS[experiment.task.name]).TASK
    return task
