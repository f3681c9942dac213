"""The keys ``task.*``: the learning task."""

from typing import Annotated

from fedsi.experiment.field_types import EntryOf, Name, Settings
from fedsi.tasks.table import TASKS


class TaskSettings(Settings):
    """The learning task."""

    name: Annotated[Name, EntryOf(TASKS)] = "next_word"
    """The task, or one of your own: the import path of a ``Task``."""
