"""The table of tasks: modules that end with their ``TASK``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.experiment import Experiment
    from fedsi.tasks.task import Task

TASKS: "Table[Task]" = Table(
    "task.name",
    "fedsi.tasks.task:Task",
    "TASK",
    {"next_word": "fedsi.tasks.next_word"},
    own="a Task of yours",
)


def task_of(experiment: "Experiment") -> "Task":
    """Return the task of an experiment; functions of the user's own are checked at each call.

    Raises:
        UserError: The task is the user's, and is not found or contradicts itself.
    """
    name = experiment.task.name
    task = TASKS[name]
    if TASKS.is_own(name):
        # What checks it needs PyTorch, which looking at the names must not load.
        from fedsi.tasks.user_task import checked_task  # noqa: PLC0415

        return checked_task(name, task)
    return task


def check_task(experiment: "Experiment", vocabulary_size: int) -> None:
    """Try out a task of the user's own before the first round.

    Raises:
        UserError: One of its functions fails, or cannot be used.
    """
    name = experiment.task.name
    if TASKS.is_own(name):
        from fedsi.tasks.user_task import try_task  # noqa: PLC0415

        try_task(name, task_of(experiment), vocabulary_size)
