"""A model's parameters as one flat vector, with their names and shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """The place of each parameter in the flat vector, in the given order."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(prod(shape) for shape in self.shapes.values())

    def views(self, flat: Tensor) -> Parameters:
        """Split a flat vector into named views; nothing is copied.

        Args:
            flat: ``[size]``, or ``[clients, size]`` with a client axis.

        Returns:
            Tensors of the layout's shapes, after the client axis if there is one.
        """
        sizes = [prod(shape) for shape in self.shapes.values()]
        pieces = flat.split(sizes, dim=-1)
        return {
            name: piece.view((*piece.shape[:-1], *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }


def drawn(layout: Layout, draw: Callable[[str, tuple[int, ...]], NDArray[np.float64]]) -> Tensor:
    """Draw parameters one after the other and return the flat vector, float32 ``[parameters]``.

    Args:
        layout: Names and shapes.
        draw: Returns the value of a parameter for its name and shape.
    """
    flat = torch.empty(layout.size)
    for name, view in layout.views(flat).items():
        view.copy_(torch.from_numpy(draw(name, layout.shapes[name])))
    return flat
