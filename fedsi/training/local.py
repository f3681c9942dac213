"""What happens on one client: local SGD from the global parameters, or an evaluation of them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsi.data.protocol import Tokens
from fedsi.experiment import ClientSettings
from fedsi.models.language_model import LanguageModel
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.training.fused import FusedSgd, has_gradient_by_hand
from fedsi.training.general import GeneralSgd
from fedsi.training.metrics import Evaluation
from fedsi.training.predictions import predictions


@dataclass(frozen=True)
class LocalResult:
    """What a client's training left besides its parameters."""

    loss: float
    """Sum over the targets of their loss before the step that used them, in nats."""
    tokens: int
    examples: int
    """Examples used, an example counting once for each epoch."""


class LocalTrainer:
    """Trains one client after another in the same buffers.

    Args:
        model: The model's functions.
        settings: Local SGD.
    """

    def __init__(self, model: Model, settings: ClientSettings) -> None:
        self.parameters = torch.zeros(model.layout.size)
        """The client's parameters after ``train``, ``[parameters]``."""
        # The gradients by hand are those of two cells; all else takes the general path.
        self._sgd = (
            FusedSgd(model, settings, self.parameters)
            if isinstance(model, LanguageModel) and has_gradient_by_hand(model.settings)
            else GeneralSgd(model, settings, self.parameters)
        )

    def train(self, start: Tensor, batches: Iterable[Tokens]) -> LocalResult:
        """Run local SGD from ``start`` over the batches; the result is in ``parameters``."""
        self.parameters.copy_(start)
        loss, tokens, examples = 0.0, 0, 0
        for batch in batches:
            step_loss, targets = self._sgd.step(batch)
            loss += step_loss
            tokens += targets
            examples += len(batch)
        return LocalResult(loss=loss, tokens=tokens, examples=examples)


def evaluate(
    model: Model, parameters: Parameters, batches: Iterable[Tokens], unigram: Tensor
) -> Evaluation:
    """Count losses and hits of a client's examples.

    Args:
        model: The model's functions.
        parameters: Named tensors without client axis.
        batches: Examples, ``[batch, time + 1]`` each.
        unigram: Log probability of each id under the unigram model, float64 ``[vocabulary]``.
    """
    counts = Evaluation()
    with torch.inference_mode():
        for batch in batches:
            counts.examples += len(batch)
            logits, targets = predictions(model, parameters, torch.from_numpy(batch).long())
            counts.add(logits, targets, unigram)
    return counts
