"""A model's predictions of the targets of a batch."""

from torch import Tensor

from fedsi.data.protocol import PAD
from fedsi.models.model import Model
from fedsi.models.parameters import Parameters


def predictions(model: Model, parameters: Parameters, batch: Tensor) -> tuple[Tensor, Tensor]:
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
