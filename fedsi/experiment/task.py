"""The keys ``task.*``: the learning task."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedsi.experiment.effects import refuse_unfitting
from fedsi.experiment.field_types import (
    Count,
    EntryOf,
    Flag,
    Name,
    OptionalName,
    PositiveNumber,
    Settings,
)
from fedsi.tasks.losses.table import LOSSES
from fedsi.tasks.table import TASKS

Length = Annotated[Count, Field(le=10**4)]


class TaskSettings(Settings):
    """The learning task."""

    name: Annotated[Name, EntryOf(TASKS)] = "next_word"
    """The task, or one of your own: the import path of a ``Task``."""
    shortest: Length = 1
    """Smallest length in training; what a length is, the task says (tasks that make their own
    examples, as for the next keys)."""
    longest: Length = 10
    """Largest length in training."""
    operation: Literal["addition", "multiplication"] = "addition"
    """The operation (arithmetic); the second number of a multiplication has two digits."""
    operands: Annotated[Count, Field(ge=2, le=100)] = 2
    """Most operands of an addition (arithmetic). With more than 2, lengths are digits x operands,
    such as ``6x4``, and training has 2 operands and more."""
    scratchpad: Flag = True
    """Whether the answer to an addition of several operands is all running sums, or their last
    (arithmetic with operands above 2)."""
    ids: Literal["coupled", "ordinary"] = "coupled"
    """Position ids of the tokens: the task's, shared by tokens that belong together (``coupled``),
    or their places in the sequence."""
    law: Literal["one", "zipf", "mixed"] = "one"
    """Lengths of the clients' examples: one length a client, in turn (``one``) or rarely a large
    one (``zipf``); or all lengths at every client (``mixed``)."""
    exponent: PositiveNumber = 1.0
    """Exponent of Zipf's law of the clients' lengths (zipf)."""
    examples: Annotated[Count, Field(le=10**6)] = 64
    """Examples of a client."""
    fresh: Flag = False
    """Whether a client has other examples in each round."""
    grid: OptionalName = None
    """Lengths that the final model is evaluated on, as in ``10,20,50``; none for none."""
    grid_examples: Annotated[Count, Field(le=10**6)] = 100
    """Examples of each of these lengths."""

    loss: Annotated[Name, EntryOf(LOSSES)] = "softmax"
    """Loss of retrieval and of next words: ``softmax`` is cross-entropy; ``decoupled_softmax``
    leaves other right labels out of the denominator; ``soft_top_k`` asks that right labels are
    among the first ``task.k``. Held-out losses are always those of ``softmax``."""
    k: Annotated[Count, Field(le=10**4)] = 5
    """Number of labels or words that ``soft_top_k`` allows."""
    labels: Annotated[Count, Field(le=10**6)] = 1000
    """Most labels of retrieval: those that most training clients have."""
    label_source: Literal["column", "words", "emoji"] = "column"
    """Right labels of a text: those in ``data.label_column``, for pydocs the names that a docstring
    documents (``column``); the words of these (``words``); or the emoji in the text, which the
    model then does not read (``emoji``)."""
    label_separator: OptionalName = "|"
    """Separates several right labels in the label column; none if it holds one label."""
    label_file: OptionalName = None
    """A .csv file or JSON lines with the columns ``label`` and ``text``, one for each label; none
    if the labels are those of the corpus and their names are their texts."""
    negatives: Literal["all", "batch"] = "all"
    """Labels that a client's examples are compared with: all, whose texts every client is sent; or
    those of the same batch, so that no client is sent labels."""

    @model_validator(mode="after")
    def _choices_take_them(self) -> Self:
        refuse_unfitting(self, "task")
        return self

    @model_validator(mode="after")
    def _there_are_labels_beyond_k(self) -> Self:
        if self.loss == "soft_top_k" and self.negatives == "batch":
            raise ValueError(
                "task.loss=soft_top_k needs more labels than task.k, which a batch may not have; "
                "set task.negatives=all or another task.loss"
            )
        return self

    @model_validator(mode="after")
    def _lengths_are_ordered(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(
                f"task.shortest ({self.shortest}) is more than task.longest ({self.longest}); "
                "change one of them"
            )
        return self

    @model_validator(mode="after")
    def _a_scratchpad_has_sums(self) -> Self:
        if self.operands == 2 and not self.scratchpad:
            raise ValueError(
                "task.scratchpad=false has no effect with two operands, whose sum is written at "
                "once; set task.operands=4 or leave it out"
            )
        return self
