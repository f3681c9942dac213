"""A model's predictions of the targets of a batch."""

import torch
from torch import Tensor

from fedsi.models.model import Model
from fedsi.models.parameters import Parameters
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
    features = model.features(parameters, torch.from_numpy(batch.inputs).long())
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    return model.logits(parameters, features[torch.from_numpy(batch.asked)]), targets
