"""A model's predictions of the targets of a batch."""

from typing import Any, cast

import torch
from torch import Tensor

from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
from fedsi.models.table import architecture
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
    inputs = torch.from_numpy(batch.inputs).long()
    if batch.positions is not None and architecture(model.settings.architecture).takes_ids:
        features = cast("Any", model).features(
            parameters, inputs, torch.from_numpy(batch.positions)
        )
    else:
        features = model.features(parameters, inputs)
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    return model.logits(parameters, features[torch.from_numpy(batch.asked)]), targets
