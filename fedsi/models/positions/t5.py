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
from fedsi.models.positions.encoding import Encoding, OnIds, Shapes, id_differences, key_distances

TABLE = "positions.table"
BUCKETS = 32
LARGEST_DISTANCE = 128


def _shapes(settings: ModelSettings) -> Shapes:
    return {TABLE: (BUCKETS, settings.heads)}


def buckets(distance: Tensor, count: int = BUCKETS) -> Tensor:
    """Return the bucket of each distance, of ``count``; distances and buckets are integers."""
    exact = count // 2
    ratio = (distance.clamp_min(exact) / exact).double().log() / math.log(LARGEST_DISTANCE / exact)
    # A distance on the border of two buckets belongs to the upper one, whatever the rounding.
    large = exact + (ratio * (count - exact) + 1e-9).floor().long()
    return torch.where(distance < exact, distance, large.clamp_max(count - 1))


def bias(parameters: Parameters, queries: Tensor, keys: Tensor, _heads: int) -> Tensor:
    """Return ``[*, heads, m, n]``."""
    chosen = parameters[TABLE][..., buckets(key_distances(queries, keys)), :]
    return chosen.movedim(-1, -3)


def _id_bias(parameters: Parameters, ids: Tensor, _heads: int) -> Tensor:
    """Return the bias of T5's two directions, 0 where a token has no id.

    Half of the buckets are for keys whose id is larger than the query's, as in T5's encoder.
    """
    differences, known = id_differences(ids)
    half = BUCKETS // 2
    places = (differences > 0) * half + buckets(differences.abs(), half)
    return (parameters[TABLE][places.squeeze(1)].movedim(-1, 1)) * known


ENCODING = Encoding(
    label="T5", colour="#0a7f6e", shapes=_shapes, bias=bias, on_ids=OnIds(bias=_id_bias)
)
