"""The task of arithmetic, whose answer is written from its least significant digit.

``task.operation`` and ``task.operands`` select a form: addition or multiplication of two numbers
(``equations.py``), or addition of several (``running_sums.py``). The answer and the end of the text
are targets. Position ids are the form's (``task.ids``).
"""

from dataclasses import replace

import numpy as np
from torch import Tensor

from fedsi.data.generated import Generation, Size
from fedsi.data.protocol import Tokens
from fedsi.experiment import TaskSettings
from fedsi.tasks import answers
from fedsi.tasks.arithmetic_text import EQUALS, Form
from fedsi.tasks.equations import ADDITION, MULTIPLICATION
from fedsi.tasks.running_sums import RUNNING_SUMS, SUM_ALONE
from fedsi.tasks.task import Batch, Counts, Task


def form(settings: TaskSettings) -> Form:
    """Return the form that the settings select."""
    if settings.operation == "multiplication":
        return MULTIPLICATION
    if settings.operands == 2:
        return ADDITION
    return RUNNING_SUMS if settings.scratchpad else SUM_ALONE


def _draw(settings: TaskSettings, size: Size, count: int, rng: np.random.Generator) -> Tokens:
    return form(settings).draw(size, count, rng)


def batch(rows: Tokens) -> Batch:
    """Return the batch of rows ``[batch, tokens]``: the answer and the end are targets."""
    return answers.answers_after(rows, EQUALS)


def configured(settings: TaskSettings) -> Task:
    """Return the task for its keys."""
    chosen = form(settings)
    assert TASK.generation  # noqa: S101

    def counts(outputs: Tensor, asked: Batch, _unigram: Tensor) -> Counts:
        return answers.answer_counts(outputs, asked, chosen.stops)

    task = replace(TASK, counts=counts, generation=replace(TASK.generation, what=chosen.what))
    if settings.ids == "ordinary":
        return task

    def coupled(rows: Tokens) -> Batch:
        return replace(batch(rows), positions=chosen.ids(rows)[..., :-1])

    return replace(task, batch=coupled, streams=chosen.streams)


TASK = replace(
    answers.asking_task(
        batch,
        "exact_match",
        Generation(
            symbols=lambda settings: form(settings).symbols,
            sizes=lambda settings: form(settings).sizes(settings),
            parse=lambda settings, text: form(settings).parse(text),
            width=lambda settings, size: form(settings).width(size),
            draw=_draw,
            what=ADDITION.what,
        ),
    ),
    keys=frozenset({"ids", "operation", "operands", "scratchpad"}),
    configured=configured,
)
