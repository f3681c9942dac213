"""Learned positions: ``x_i + p_i`` with a table p of ``model.max_length`` rows.

Source: Gehring et al. (arXiv 1705.03122); as in BERT and GPT.
"""

import numpy as np
from torch import Tensor

from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Array, Encoding, Shapes

TABLE = "positions.table"
RANGE = {"default": 0.5, "paper": 0.05}


def _shapes(settings: ModelSettings) -> Shapes:
    return {TABLE: (settings.max_length, settings.embedding_size)}


def _draw(rng: np.random.Generator, name: str, settings: ModelSettings, shapes: Shapes) -> Array:
    """Draw rows of the size of the embeddings' that they are added to."""
    limit = RANGE[settings.initialisation]
    return rng.uniform(-limit, limit, shapes[name])


def embed(parameters: Parameters, vectors: Tensor, positions: Tensor) -> Tensor:
    """Add each position's row.

    Raises:
        UserError: A position beyond the table.
    """
    table = parameters[TABLE]
    length = int(positions[-1]) + 1
    if length > table.shape[-2]:
        raise UserError(
            f"a sequence of {length} tokens is longer than the {table.shape[-2]} learned "
            "positions; raise model.max_length and train anew, shorten the sequence, or use an "
            "encoding that extends to any length, such as model.positions=fire"
        )
    return vectors + table[..., positions, :].unsqueeze(-3)


LEARNED = Encoding(shapes=_shapes, draw=_draw, embed=embed)
