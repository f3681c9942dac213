"""The keys ``task.*``: what is learned."""

from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator

from fedsi.experiment.field_types import Name, Settings
from fedsi.tasks.table import TASKS


def _check_task(name: str) -> str:
    """Refuse a name that is not in the table."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"there is no task {name}{meant} Tasks are {', '.join(TASKS)}")
    return name


class TaskSettings(Settings):
    """What is learned."""

    name: Annotated[Name, AfterValidator(_check_task)] = "next_word"
    """The task."""
