"""Initial parameters, a pure function of the seed.

The kernels follow the Stack Overflow baseline of Reddi et al. (arXiv 2003.00295): recurrent
kernel orthogonal, input kernel He normal, dense layers Glorot uniform. What differs is the scale
of the embeddings, which decides how well the scale-invariant cell trains: after max-normalisation
a recurrent pre-activation that dominates the input's is blown up again at every step.

A user's model draws its own.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.errors import UserError
from fedsi.models.cells import GATES
from fedsi.models.language_model import LanguageModel
from fedsi.models.user_model import UserModel
from fedsi.seeds import Purpose, generator

Array = NDArray[np.float64]

EMBEDDING_RANGE = {"default": 0.5, "paper": 0.05}
MOST_PARAMETERS = 10**9
FORGET_BIAS = {"default": 1.0, "paper": 0.0}


def initial_parameters(model: LanguageModel | UserModel, seed: int) -> Tensor:
    """Draw the parameters of round zero.

    Returns:
        The flat vector, float32 ``[parameters]``.

    Raises:
        UserError: The model is far too large for any device, or a user's model cannot be drawn
            again.
    """
    if model.layout.size > MOST_PARAMETERS:
        raise UserError(
            f"the model would have {model.layout.size:,} parameters, at most {MOST_PARAMETERS:,} "
            "are allowed; reduce model.hidden_size, model.embedding_size or data.vocabulary_size"
        )
    if isinstance(model, UserModel):
        return model.initial_parameters(seed)
    rng = generator(seed, Purpose.INITIALISATION)
    style = model.settings.initialisation
    flat = torch.empty(model.layout.size)
    for name, view in model.layout.views(flat).items():
        value = _draw(rng, name, tuple(view.shape), style)
        view.copy_(torch.from_numpy(value))
    return flat


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...], style: str) -> Array:
    match name:
        case "embedding":
            return rng.uniform(-EMBEDDING_RANGE[style], EMBEDDING_RANGE[style], shape)
        case "cell.kernel":
            return rng.normal(0.0, np.sqrt(2.0 / shape[0]), shape)
        case "cell.recurrent":
            return _orthogonal(rng, shape[0])
        case "cell.bias":
            bias = np.zeros(shape)
            bias[: shape[0] // GATES] = FORGET_BIAS[style]
            return bias
        case "projection.weight" | "output.weight":
            limit = np.sqrt(6.0 / sum(shape))
            return rng.uniform(-limit, limit, shape)
        case _:
            return np.zeros(shape)


def _orthogonal(rng: np.random.Generator, hidden: int) -> Array:
    """Return ``[hidden, 3 hidden]`` whose rows are orthonormal, as one wide orthogonal kernel."""
    q, r = np.linalg.qr(rng.normal(size=(GATES * hidden, hidden)))
    columns: Array = q * np.sign(np.diag(r))
    return columns.T
