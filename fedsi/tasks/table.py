"""The table of tasks: modules that end with their ``TASK``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.tasks.task import Task

TASKS: "Table[Task]" = Table(
    "task.name", "fedsi.tasks.task:Task", "TASK", {"next_word": "fedsi.tasks.next_word"}
)


def task_of(experiment: "Experiment") -> "Task":
    """Return the task of an experiment."""
    return TASKS[experiment.task.name]
