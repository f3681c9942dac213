"""Evaluation of clients, all with the same weights.

Where a task needs only the losses and ranks of its targets, no logits are kept; and where a model
has a pass by hand whose batches can be joined, many clients are one pass, so that weights are read
and small operations started once for all of them. Each client's counts have the bits that it has
alone, so it does not matter which clients are joined: the products are fedsi's own, whatever
``client.products`` trains with.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.product_choice import OWN
from fedsi.kernels.cpu.ranks import ranked_by_logits
from fedsi.learning.predictions import predictions
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.models.table import joins_batches, pass_by_hand
from fedsi.tables import load
from fedsi.tasks.task import Batch, Counts, Task

JOINED_TARGETS = 2048
"""Targets that are joined: enough for products at full speed, few enough for the cache."""


def evaluate_client(
    task: Task, model: Model, parameters: Parameters, batches: Iterable[Batch], unigram: Tensor
) -> Counts:
    """Compute a task's counts on a client's examples, ``[columns]``.

    Args:
        task: The task.
        model: The model's functions.
        parameters: Named tensors without client axis.
        batches: The examples.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
    """
    counts = np.zeros(len(task.columns))
    with torch.inference_mode():
        for batch in batches:
            outputs, targets = predictions(model, parameters, batch)
            # A model of yours may compute in another type.
            if task.ranked is None or outputs.dtype != torch.float32:
                counts += task.counts(outputs, batch, unigram)
            else:
                counts += task.ranked(ranked_by_logits(outputs, targets), len(batch), unigram)
    return counts


def can_join_evaluations(task: Task, model: Model) -> bool:
    """Whether the evaluations of clients can be joined."""
    return task.ranked is not None and joins_batches(model)


class JoinedEvaluation:
    """Evaluates clients in joined batches.

    Args:
        task: A task whose targets need only be ranked.
        model: A model whose batches can be joined.
        unigram: As in ``evaluate_client``.
    """

    def __init__(self, task: Task, model: Model, unigram: Tensor) -> None:
        self._counts: Any = task.ranked
        self._unigram, self._columns = unigram, task.columns
        self._parameters = torch.zeros(model.layout.size)
        self._products = Products(ClientSettings(products=OWN))
        views = model.layout.views(self._parameters)
        self._pass: Any = load(str(pass_by_hand(model)))(model, views)

    def begin(self, parameters: Tensor) -> None:
        """Set the parameters, ``[parameters]``."""
        self._parameters.copy_(parameters)

    def counts(self, batches: Iterable[tuple[int, Batch]]) -> Iterator[tuple[int, Counts]]:
        """Yield the counts of each batch, ``[columns]``, with the number that came with it."""
        group: list[tuple[int, Batch]] = []
        targets = 0
        for number, batch in batches:
            if targets + batch.count > JOINED_TARGETS and group:
                yield from self._joined(group)
                group, targets = [], 0
            group.append((number, batch))
            targets += batch.count
        yield from self._joined(group)

    def _joined(self, group: Sequence[tuple[int, Batch]]) -> Iterator[tuple[int, Counts]]:
        asked = [batch for _, batch in group if batch.count]
        ranked = iter(self._pass.ranked(asked, self._products) if asked else ())
        for number, batch in group:
            if batch.count:
                yield number, self._counts(next(ranked), len(batch), self._unigram)
            else:
                nothing = np.zeros(len(self._columns))
                nothing[self._columns.index("examples")] = len(batch)
                yield number, nothing
