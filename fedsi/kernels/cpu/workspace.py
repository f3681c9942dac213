"""Memory that is reused from step to step and from client to client."""

from math import prod

import torch
from torch import Tensor


class Workspace:
    """Named scratch tensors. Each grows to the largest size requested and is never cleared.

    Args:
        dtype: Type of all tensors.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous tensor with undefined contents."""
        size = prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size:
            flat = self._flat[name] = torch.empty(size, dtype=self._dtype)
        return flat[:size].view(shape)

    def zeros(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous tensor of zeros."""
        return self.take(name, *shape).zero_()
