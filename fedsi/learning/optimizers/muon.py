"""Muon: momentum whose matrices are orthogonalised, and AdamW for everything else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); local steps of
federated clients: Liu et al., "FedMuon" (arXiv 2510.27403), whose Local Muon this is: momenta
restart for each client, and nothing aligns the clients' directions. For a hidden matrix with
gradient G, in each step ``B <- b1 B + G`` and ``W <- (1 - eta lambda) W - eta s O(G + b1 B)``. O
brings all singular values near 1 by five steps of a Newton-Schulz iteration; the factor ``s = 0.2
sqrt(max(rows, columns))`` gives the step the root mean square of a step of AdamW (Liu et al., "Muon
is Scalable for LLM Training", arXiv 2502.16982), so that one learning rate serves both.

Hidden matrices are those without a row or column for each word. A recurrent cell's gates are side
by side in one matrix and are orthogonalised together.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu.adamw import adamw_step
from fedsi.learning.optimizers.adamw import Moments
from fedsi.models.model import Model

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the iteration ``X <- a X + (b A + c A^2) X`` with ``A = X X'``, from Jordan et al.: the slope
at zero is as large as possible, and singular values end between 0.7 and 1.2."""
ITERATIONS = 5
SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Matrix:
    """A hidden matrix in the flat vector."""

    span: slice
    shape: tuple[int, int]

    @property
    def scale(self) -> float:
        """Factor of its orthogonal step."""
        return 0.2 * math.sqrt(max(self.shape))

    def of(self, flat: Tensor) -> Tensor:
        """Return the view of it, ``[*, rows, columns]``, in parameters ``[*, parameters]``."""
        return flat[..., self.span].view(*flat.shape[:-1], *self.shape)


def split_hidden(model: Model) -> tuple[list[Matrix], list[slice]]:
    """Return the hidden matrices of a model, and the spans of all other parameters."""
    matrices: list[Matrix] = []
    others: list[slice] = []
    begin = 0
    for shape in model.layout.shapes.values():
        span = slice(begin, begin + math.prod(shape))
        begin = span.stop
        if len(shape) == 2 and model.vocabulary_size not in shape:
            matrices.append(Matrix(span, (shape[0], shape[1])))
        elif others and others[-1].stop == span.start:
            others[-1] = slice(others[-1].start, span.stop)
        else:
            others.append(span)
    return matrices, others


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return matrices ``[*, rows, columns]`` with their singular values brought near 1.

    Zero stays zero.
    """
    a, b, c = COEFFICIENTS
    rows, columns = matrix.shape[-2:]
    x: Tensor = matrix.mT if rows > columns else matrix
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = x / norm.clamp_min(SMALLEST_NORM)
    for _ in range(ITERATIONS):
        squared = x @ x.mT
        x = a * x + (b * squared + c * (squared @ squared)) @ x
    return x.mT if rows > columns else x


class Muon(Moments):
    """Muon; momenta, moments and bias corrections restart for each client.

    ``first`` holds the momenta of hidden matrices, whose places in ``second`` stay 0.

    Args:
        settings: Learning rate eta, weight decay lambda, decays b1 and b2, adaptivity tau of AdamW.
        parameters: theta, ``[parameters]``.
        model: The model whose hidden matrices are orthogonalised.
    """

    def __init__(self, settings: ClientSettings, parameters: Tensor, model: Model) -> None:
        super().__init__(settings, parameters)
        self._matrices, self._others = split_hidden(model)

    def step(self, gradient: Tensor, scale: float = 1.0) -> None:
        """Take a step, as ``Optimizer.step``; the clipped gradient enters the momenta."""
        if scale != 1.0:
            gradient.mul_(scale)
        self.steps += 1
        flat = [self.parameters, gradient, self.first, self.second]
        constants = self.scalars()
        for span in self._others:
            theta, g, m, v = (vector.numpy()[span] for vector in flat)
            adamw_step(theta, g, m, v, constants)
        decay = self.settings.momentum
        keep = 1 - self.learning_rate * self.settings.weight_decay
        for matrix in self._matrices:
            weights, slope, momentum, _ = map(matrix.of, flat)
            momentum.mul_(decay).add_(slope)
            direction = orthogonalised(torch.add(slope, momentum, alpha=decay))
            weights.mul_(keep).add_(direction, alpha=-self.learning_rate * matrix.scale)
