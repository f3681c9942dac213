"""T5's buckets: one learned bias for each head and each bucket of distances.

With 32 buckets, one direction and a largest distance of 128::

    bucket(n) = n                                                    for n < 16
    bucket(n) = min(31, 16 + floor(16 log(n / 16) / log(128 / 16)))  otherwise

and ``b(i, j) = table[bucket(i - j), h]``. The table starts at zero.

Source: Raffel et al. (arXiv 1910.10683), section 2.1, and the authors' code.
"""

import math

import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Encoding, Shapes, key_distances

TABLE = "positions.table"
BUCKETS = 32
EXACT = BUCKETS // 2
LARGEST_DISTANCE = 128


def _shapes(settings: ModelSettings) -> Shapes:
    return {TABLE: (BUCKETS, settings.heads)}


def buckets(distance: Tensor) -> Tensor:
    """Return the bucket of each distance; both are integers."""
    ratio = (distance.clamp_min(EXACT) / EXACT).double().log() / math.log(LARGEST_DISTANCE / EXACT)
    # A distance on the border of two buckets belongs to the upper one, whatever the rounding.
    large = EXACT + (ratio * (BUCKETS - EXACT) + 1e-9).floor().long()
    return torch.where(distance < EXACT, distance, large.clamp_max(BUCKETS - 1))


def bias(parameters: Parameters, queries: Tensor, keys: Tensor, _heads: int) -> Tensor:
    """Return ``[*, heads, m, n]``."""
    chosen = parameters[TABLE][..., buckets(key_distances(queries, keys)), :]
    return chosen.movedim(-1, -3)


ENCODING = Encoding(label="T5", colour="#0a7f6e", shapes=_shapes, bias=bias)
