"""A model's predictions of the targets of a batch."""

from typing import Any, cast

import torch
from torch import Tensor

from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.models.table import architecture, is_penalised
from fedsi.tasks.task import Batch


def predictions(model: Model, parameters: Parameters, batch: Batch) -> tuple[Tensor, Tensor]:
    """Predict each target of a batch; logits are computed only at positions with a target.

    Args:
        model: The model's functions.
        parameters: Named tensors without client axis.
        batch: The batch.

    Returns:
        Logits ``[targets, vocabulary]`` and the targets' ids ``[targets]``.
    """
    return _at_targets(model, parameters, batch_features(model, parameters, batch), batch)


def penalised_predictions(
    model: Model, parameters: Parameters, batch: Batch
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the same, and what training adds to the batch's mean loss; None for nothing."""
    if not is_penalised(model.settings):
        return *predictions(model, parameters, batch), None
    ids = None if batch.positions is None else torch.from_numpy(batch.positions)
    inputs = torch.from_numpy(batch.inputs).long()
    features, penalty = cast("Any", model).features_and_penalty(parameters, inputs, ids)
    return *_at_targets(model, parameters, features, batch), penalty


def batch_features(model: Model, parameters: Parameters, batch: Batch) -> Tensor:
    """Return the features ``[batch, time, *]`` of a batch, with its position ids if it has some."""
    inputs = torch.from_numpy(batch.inputs).long()
    if batch.positions is None or not architecture(model.settings.architecture).takes_ids:
        return model.features(parameters, inputs)
    ids = torch.from_numpy(batch.positions)
    found: Tensor = cast("Any", model).features(parameters, inputs, ids)
    return found


def _at_targets(
    model: Model, parameters: Parameters, features: Tensor, batch: Batch
) -> tuple[Tensor, Tensor]:
    """Return the logits and ids of a batch's targets."""
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    return model.logits(parameters, features[torch.from_numpy(batch.asked)]), targets
