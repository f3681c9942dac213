"""Relative positions: one learned bias for each head and each clipped, signed difference.

``b(i, j) = table[clip(id_j - id_i, -K, K) + K, h]`` with ``K = model.max_distance``, for positions
or for ids from the task. One more row is for pairs in which a token has no id. The table starts at
zero.

Source: Shaw, Uszkoreit and Vaswani (arXiv 1803.02155), section 3.2, as a bias of the score instead
of a vector. On ids it is fedsi's variant of position coupling (Cho et al., arXiv 2405.20671), which
adds a learned table of ids with a random start to the words' vectors (``learned``).
"""

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Encoding, OnIds, Shapes, id_differences

TABLE = "positions.table"


def _shapes(settings: ModelSettings) -> Shapes:
    return {TABLE: (2 * settings.max_distance + 2, settings.heads)}


def _farthest(table: Tensor) -> int:
    """Return K, which the number of rows tells."""
    return table.shape[-2] // 2 - 1


def bias(parameters: Parameters, queries: Tensor, keys: Tensor, _heads: int) -> Tensor:
    """Return ``[*, heads, m, n]``."""
    table = parameters[TABLE]
    far = _farthest(table)
    places = (keys - queries[:, None]).clamp(-far, far) + far
    return table[..., places, :].movedim(-1, -3)


def _id_bias(parameters: Parameters, ids: Tensor, _heads: int) -> Tensor:
    table = parameters[TABLE]
    far = _farthest(table)
    differences, known = id_differences(ids)
    places = torch.where(known, differences.clamp(-far, far) + far, 2 * far + 1)
    return table[places.squeeze(1)].movedim(-1, 1)


ENCODING = Encoding(
    label="relative",
    colour="#2e7d32",
    shapes=_shapes,
    bias=bias,
    on_ids=OnIds(bias=_id_bias),
)
