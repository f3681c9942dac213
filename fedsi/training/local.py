"""What happens on one client: local SGD from the global parameters, or an evaluation of them."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedsi.data.protocol import PAD, Tokens
from fedsi.experiment import ClientSettings
from fedsi.models.language_model import LanguageModel
from fedsi.models.parameters import Parameters
from fedsi.training.metrics import Evaluation


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

    def __init__(self, model: LanguageModel, settings: ClientSettings) -> None:
        self._model = model
        self._settings = settings
        self.parameters = torch.zeros(model.layout.size)
        """The client's parameters after ``train``, ``[parameters]``."""
        self._gradient = torch.zeros(model.layout.size)
        self._leaves = _leaves(model, self.parameters, self._gradient)

    def train(self, start: Tensor, batches: Iterable[Tokens]) -> LocalResult:
        """Run local SGD from ``start`` over the batches; the result is in ``parameters``.

        A step is ``theta <- (1 - eta lambda) theta - eta clip(g)`` with the gradient g of the mean
        loss over the batch's targets.
        """
        self.parameters.copy_(start)
        loss, tokens, examples = 0.0, 0, 0
        for batch in batches:
            step_loss, targets = self._step(torch.from_numpy(batch).long())
            loss += step_loss * targets
            tokens += targets
            examples += len(batch)
        return LocalResult(loss=loss, tokens=tokens, examples=examples)

    def _step(self, batch: Tensor) -> tuple[float, int]:
        settings = self._settings
        logits, targets = predictions(self._model, self._leaves, batch)
        loss = functional.cross_entropy(logits, targets)
        self._gradient.zero_()
        torch.autograd.backward(loss, inputs=list(self._leaves.values()))
        rate = settings.learning_rate
        if settings.gradient_clip is not None:
            norm = float(torch.linalg.vector_norm(self._gradient))
            rate *= settings.gradient_clip / max(norm, settings.gradient_clip)
        if settings.weight_decay:
            self.parameters.mul_(1.0 - settings.learning_rate * settings.weight_decay)
        self.parameters.add_(self._gradient, alpha=-rate)
        return loss.item(), len(targets)


def evaluate(
    model: LanguageModel, parameters: Parameters, batches: Iterable[Tokens], unigram: Tensor
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


def predictions(
    model: LanguageModel, parameters: Parameters, batch: Tensor
) -> tuple[Tensor, Tensor]:
    """Predict each target of a batch; logits are computed only where there is a target.

    Args:
        model: The model's functions.
        parameters: Named tensors without client axis.
        batch: ``[batch, time + 1]``.

    Returns:
        Logits ``[targets, vocabulary]`` and the targets' ids ``[targets]``.
    """
    inputs, following = batch[:, :-1], batch[:, 1:]
    mask = following != PAD
    features = model.features(parameters, inputs)
    return model.logits(parameters, features[mask]), following[mask]


def _leaves(model: LanguageModel, flat: Tensor, gradient: Tensor) -> Parameters:
    """Return autograd leaves that share memory with the flat vectors, so that SGD is one call."""
    leaves = {}
    gradients = model.layout.views(gradient)
    for name, view in model.layout.views(flat).items():
        leaf = view.detach().requires_grad_()
        leaf.grad = gradients[name]
        leaves[name] = leaf
    return leaves
