"""Deviations of a student's probabilities from its teacher's (arXiv 2301.12923).

At each position the class is the teacher's likeliest word, and phi = log(p / (1 - p)) is its log
odds under a model. The paper reads two things off a plot of the student's phi over the teacher's: a
slope above 1 (the student exaggerates), and points below the diagonal where the teacher is not
confident. Neither proves anything alone: an independent model, trained without the teacher, is the
control.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.learning.predictions import predictions
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.tasks.task import Batch

FEWEST = 8
"""Fewest positions to fit a line to."""
LEAST_CONFIDENT = 0.25
"""Share of the positions, those at which the teacher is least confident."""

LogOdds = NDArray[np.float64]
"""Log odds of the teacher's class at each position, ``[positions]``."""


@dataclass(frozen=True)
class Deviations:
    """A model's log odds against the teacher's."""

    positions: int
    slope: float
    """Least squares of the model's log odds on the teacher's."""
    intercept: float
    correlation: float
    spread: float
    """Standard deviation of the model's log odds over that of the teacher's."""
    below: float
    """Share of the teacher's least confident quarter of positions that lies below the diagonal."""


def class_log_odds(logits: Tensor, classes: Tensor) -> LogOdds:
    """Return ``log p / (1 - p)`` of a class at each position.

    It is the class's logit minus the logarithm of the sum of the others' exponentials, so it is
    finite even where p rounds to 1.

    Args:
        logits: ``[positions, vocabulary]``.
        classes: ``[positions]``.
    """
    wide = logits.double()
    chosen = wide.gather(1, classes[:, None])
    others = wide.scatter(1, classes[:, None], -torch.inf).logsumexp(1)
    return (chosen[:, 0] - others).numpy()


def likeliest_log_odds(
    teacher: tuple[Model, Parameters], others: list[tuple[Model, Parameters]], batch: Batch
) -> list[LogOdds]:
    """Return the log odds of the teacher's likeliest words at a batch's targets.

    Returns:
        Those of the teacher, and of each other model.
    """
    with torch.inference_mode():
        logits = [predictions(model, named, batch)[0] for model, named in (teacher, *others)]
        classes = logits[0].argmax(1)
        return [class_log_odds(one, classes) for one in logits]


def deviations_of(teacher: LogOdds, model: LogOdds) -> Deviations:
    """Compare a model's log odds with the teacher's.

    Raises:
        ValueError: There are fewer than ``FEWEST`` positions, or the teacher's are all equal.
    """
    if len(teacher) < FEWEST:
        raise ValueError(f"{len(teacher)} positions are too few: at least {FEWEST} are needed")
    if not teacher.std() > 0:
        raise ValueError("the teacher is equally confident everywhere, so there is no slope")
    slope, intercept = np.polyfit(teacher, model, 1)
    least = np.argsort(teacher, kind="stable")[: round(LEAST_CONFIDENT * len(teacher))]
    varies = model.std() > 0
    return Deviations(
        positions=len(teacher),
        slope=float(slope),
        intercept=float(intercept),
        correlation=float(np.corrcoef(teacher, model)[0, 1]) if varies else 0.0,
        spread=float(model.std() / teacher.std()),
        below=float(np.mean(model[least] < teacher[least])),
    )
