"""The keys ``task.*``: what is learned."""

from typing import Annotated

from fedsi.experiment.field_types import EntryOf, Name, Settings
from fedsi.tasks.table import TASKS


class TaskSettings(Settings):
    """What is learned."""

    name: Annotated[Name, EntryOf(TASKS)] = "next_word"
    """The task."""
