"""A model's function as a PyTorch module, as required by PyTorch's exporters."""

from collections.abc import Callable

from torch import Tensor, nn

from fedsi.models.model import Model, Outputs
from fedsi.models.parameters import Parameters

_Result = Tensor | tuple[Tensor, ...]


class Exported(nn.Module):
    """The function to export: tokens, int64 ``[batch, time]``, to logits or other outputs.

    Args:
        model: The model.
        features: Returns ``model.features`` for parameters and tokens, in a way that can be
            exported.
        parameters: The model's parameters.
        outputs: Replaces the output layer, as in ``Model.exported``.
    """

    def __init__(
        self,
        model: Model,
        features: Callable[[Parameters, Tensor], Tensor],
        parameters: Parameters,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__()
        self._model, self._features, self._outputs = model, features, outputs
        for name, value in parameters.items():
            self.register_parameter(_attribute(name), nn.Parameter(value.clone()))
        self._names = tuple(parameters)

    def forward(self, tokens: Tensor) -> _Result:
        """Return logits, ``[batch, time, vocabulary]``, or what ``outputs`` returns."""
        named: Parameters = {name: self.get_parameter(_attribute(name)) for name in self._names}
        features = self._features(named, tokens)
        if self._outputs is None:
            return self._model.logits(named, features)
        states = self._model.output_inputs(named, features)
        if states is None:
            raise TypeError(f"{self._model.settings.architecture} has no output layer")
        return self._outputs(states)


def _attribute(name: str) -> str:
    return name.replace(".", "_")
