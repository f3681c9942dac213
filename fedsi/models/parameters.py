"""All parameters of a model as one flat vector, and their names and shapes within it."""

from dataclasses import dataclass
from math import prod

from torch import Tensor

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the flat vector, in the order given."""

    shapes: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of scalars."""
        return sum(prod(shape) for shape in self.shapes.values())

    def views(self, flat: Tensor) -> Parameters:
        """Cut a flat vector into named views; nothing is copied.

        Args:
            flat: ``[size]`` or, one row a client, ``[clients, size]``.

        Returns:
            Tensors of the layout's shapes, behind the client axis where there is one.
        """
        sizes = [prod(shape) for shape in self.shapes.values()]
        pieces = flat.split(sizes, dim=-1)
        return {
            name: piece.view((*piece.shape[:-1], *shape))
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }
