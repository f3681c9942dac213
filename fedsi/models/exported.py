"""A model's function as a PyTorch module, as required by PyTorch's exporters."""

from collections.abc import Callable

from torch import Tensor, nn

from fedsi.models.parameters import Parameters


class Exported(nn.Module):
    """The function to export: tokens, int64 ``[batch, time]``, to logits.

    Args:
        function: Returns logits, ``[batch, time, vocabulary]``, for parameters and tokens.
        parameters: The model's parameters.
    """

    def __init__(
        self, function: Callable[[Parameters, Tensor], Tensor], parameters: Parameters
    ) -> None:
        super().__init__()
        self._function = function
        for name, value in parameters.items():
            self.register_parameter(_attribute(name), nn.Parameter(value.clone()))
        self._names = tuple(parameters)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits, ``[batch, time, vocabulary]``."""
        named: Parameters = {name: self.get_parameter(_attribute(name)) for name in self._names}
        return self._function(named, tokens)


def _attribute(name: str) -> str:
    return name.replace(".", "_")
