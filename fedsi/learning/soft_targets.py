"""Soft targets: the probabilities of a model, or of an ensemble of models, and the loss to them."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from fedsi.learning.algorithms.algorithm import Updates, Vector
from fedsi.learning.predictions import predictions
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.tasks.task import Batch

Logits = Callable[[Batch], Tensor]
"""Returns the logits at a batch's targets, ``[targets, vocabulary]``."""


class SoftTargets:
    """The softmax of some logits over a temperature, as a learner's targets.

    Args:
        logits: Returns the logits to imitate.
        temperature: Divides these logits and the learner's.
    """

    def __init__(self, logits: Logits, temperature: float) -> None:
        self._logits, self._temperature = logits, temperature
        self._targets: Tensor | None = None

    def before(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches; the loss is that of the latest one."""
        for batch in batches:
            with torch.no_grad():
                self._targets = (self._logits(batch) / self._temperature).softmax(-1)
            yield batch

    def losses(self, outputs: Tensor, _targets: Tensor) -> Tensor:
        """Return ``-T^2 sum_w p_w log q_w`` at each position, in nats, ``[targets]``.

        ``p`` and ``q`` are the softmax of the imitated and the learner's logits over the
        temperature ``T``; ``T^2`` keeps the gradient's size (arXiv 1503.02531, section 2).

        Args:
            outputs: The learner's logits, ``[targets, vocabulary]``.
        """
        assert self._targets is not None, "no batch was yielded"  # noqa: S101
        heat = self._temperature
        likelihoods = (outputs / heat).log_softmax(-1)
        return -(heat**2) * (self._targets * likelihoods).sum(-1)


def logits_of(model: Model, parameters: Parameters) -> Logits:
    """Return the logits of one model.

    Args:
        model: The model's functions.
        parameters: Its named parameters.
    """
    return lambda batch: predictions(model, parameters, batch)[0]


def mean_logits(model: Model, start: Vector, updates: Updates) -> Logits:
    """Return the mean of several models' logits, AVGLOGITS in arXiv 2006.07242, section 3.

    Args:
        model: The models' functions; all have one architecture.
        start: The parameters that all models were trained from, ``[parameters]``.
        updates: How far each was trained away from it, at least one: ``[models, parameters]``.
    """
    # In memory allocated by torch, whose fixed alignment BLAS kernels depend on.
    buffer = torch.empty(len(start))
    views = model.layout.views(buffer)

    def logits(batch: Batch) -> Tensor:
        total: Tensor | None = None
        for update in updates:
            np.add(start, update, out=buffer.numpy())
            found, _ = predictions(model, views, batch)
            total = found if total is None else total.add_(found)
        assert total is not None, "there is a model"  # noqa: S101
        return total / len(updates)

    return logits
