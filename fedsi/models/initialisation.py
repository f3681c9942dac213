"""Initial parameters, a pure function of the seed.

The kernels follow the Stack Overflow baseline of Reddi et al. (arXiv 2003.00295): recurrent
kernel orthogonal, input kernel He normal, dense layers Glorot uniform. What differs is the scale
of the embeddings, which decides how well the scale-invariant cell trains: after max-normalisation
a recurrent pre-activation that dominates the input's is blown up again at every step.

In a Transformer all matrices are Glorot uniform, layer norms start as the identity, and position
encodings as their own files say. Its embeddings always start small where the output is tied: a
layer norm gives the output layer features of size one, and larger embeddings would make it sure of
random words.
A user's model draws its own.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.models.language_model import LanguageModel
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.transformer import Transformer
from fedsi.models.user_model import UserModel
from fedsi.seeds import Purpose, generator

Array = NDArray[np.float64]

EMBEDDING_RANGE = {"default": 0.5, "paper": 0.05}
MOST_PARAMETERS = 10**9
FORGET_BIAS = {"default": 1.0, "paper": 0.0}


def initial_parameters(model: LanguageModel | Transformer | UserModel, seed: int) -> Tensor:
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
    shapes = model.layout.shapes
    flat = torch.empty(model.layout.size)
    for name, view in model.layout.views(flat).items():
        if name.startswith("positions."):
            value = ENCODINGS[model.settings.positions].draw(rng, name, model.settings, shapes)
        else:
            value = _draw(rng, name, shapes[name], model.settings)
        view.copy_(torch.from_numpy(value))
    return flat


def _draw(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], settings: ModelSettings
) -> Array:
    style = settings.initialisation
    match name.split("."):
        case ["embedding"]:
            small = settings.is_transformer and settings.tied_output
            limit = EMBEDDING_RANGE["paper" if small else style]
            return rng.uniform(-limit, limit, shape)
        case ["cell", "kernel"]:
            return rng.normal(0.0, np.sqrt(2.0 / shape[0]), shape)
        case ["cell", "recurrent"]:
            return _orthogonal(rng, shape)
        case ["cell", "bias"]:
            bias = np.zeros(shape)
            bias[: settings.hidden_size] = FORGET_BIAS[style]
            return bias
        case ["projection" | "output", "weight"] | ["blocks", _, "attention" | "feedforward", _]:
            limit = np.sqrt(6.0 / sum(shape))
            return rng.uniform(-limit, limit, shape)
        case _:
            return np.full(shape, 1.0 if name.endswith("norm.scale") else 0.0)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return ``[state, gates hidden]`` with orthonormal rows, as one wide orthogonal kernel."""
    q, r = np.linalg.qr(rng.normal(size=shape[::-1]))
    columns: Array = q * np.sign(np.diag(r))
    return columns.T
