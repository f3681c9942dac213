"""Memory that is used again from step to step and from client to client."""

from math import prod

import torch
from torch import Tensor


class Workspace:
    """Named scratch tensors; each grows to the largest size asked of it and is never cleared.

    Args:
        dtype: Of all of them.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._flat: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous tensor; what it holds is undefined."""
        size = prod(shape)
        flat = self._flat.get(name)
        if flat is None or len(flat) < size:
            flat = self._flat[name] = torch.empty(size, dtype=self._dtype)
        return flat[:size].view(shape)

    def zeros(self, name: str, *shape: int) -> Tensor:
        """Return a contiguous tensor of zeros."""
        return self.take(name, *shape).zero_()
