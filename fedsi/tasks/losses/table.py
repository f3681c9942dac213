"""The table of losses, ``task.loss``: modules that end with their ``LOSS``."""

from typing import TYPE_CHECKING

from fedsi.tables import Table

if TYPE_CHECKING:
    from fedsi.tasks.losses.loss import LabelLoss

LOSSES: "Table[LabelLoss]" = Table(
    "task.loss",
    "collections.abc:Callable",
    "LOSS",
    {
        "softmax": "fedsi.tasks.losses.softmax",
        "decoupled_softmax": "fedsi.tasks.losses.decoupled_softmax",
        "soft_top_k": "fedsi.tasks.losses.soft_top_k",
    },
)
