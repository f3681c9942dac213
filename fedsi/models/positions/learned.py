"""Learned positions: ``x_i + p_i`` with a table p of ``model.max_length`` rows.

Source: Gehring et al. (arXiv 1705.03122); also used in BERT and GPT.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional

from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Array, Encoding, OnIds, Shapes

TABLE = "positions.table"
RANGE = {"default": 0.5, "paper": 0.05}


def _shapes(settings: ModelSettings) -> Shapes:
    return {TABLE: (settings.max_length, settings.embedding_size)}


def _draw(rng: np.random.Generator, name: str, settings: ModelSettings, shapes: Shapes) -> Array:
    """Draw rows on the scale of the embeddings that they are added to."""
    limit = RANGE[settings.initialisation]
    return rng.uniform(-limit, limit, shapes[name])


def embed(parameters: Parameters, vectors: Tensor, positions: Tensor) -> Tensor:
    """Add each position's row."""
    return vectors + parameters[TABLE][..., positions, :].unsqueeze(-3)


def _embed_ids(parameters: Parameters, vectors: Tensor, ids: Tensor) -> Tensor:
    """Add each id's row; nothing to tokens without one."""
    rows = functional.embedding(ids.clamp_min(0), parameters[TABLE])
    return vectors + rows * (ids >= 0).unsqueeze(-1)


def check_length(settings: ModelSettings, length: int) -> None:
    """Refuse a sequence that is longer than the table.

    Raises:
        UserError: The sequence is too long.
    """
    longest = settings.longest_sequence
    if longest is not None and length > longest:
        raise UserError(
            f"a sequence of {length} tokens is longer than the {longest} learned positions; raise "
            "model.max_length and train again, shorten the sequence, or use an encoding that "
            "extends to any length, such as model.positions=fire"
        )


ENCODING = Encoding(
    label="learned",
    colour="#7a4fb0",
    shapes=_shapes,
    draw=_draw,
    embed=embed,
    on_ids=OnIds(embed=_embed_ids),
)
