"""Kerple, logarithmic variant: ``b(i, j) = -r1 log(1 + r2 (i - j))``, r1, r2 > 0 for each head.

The parameters hold x with ``r = log(1 + exp(x))``, which keeps r positive under any step. Initially
r1 is uniform in (0, 2) and r2 in (0, 1), as in the authors' code.

Source: Chi et al. (arXiv 2205.09921), corollary 1 and section 4.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import (
    Array,
    Encoding,
    OnIds,
    Shapes,
    id_differences,
    inverse_softplus,
    key_distances,
)

STRENGTH = "positions.strength"
"""Parameter name of r1."""
RATE = "positions.rate"
"""Parameter name of r2."""
SMALLEST_INITIAL = 1e-2
"""Keeps initial values away from 0, where x is unbounded."""


def _shapes(settings: ModelSettings) -> Shapes:
    return {STRENGTH: (settings.heads,), RATE: (settings.heads,)}


def _draw(rng: np.random.Generator, name: str, _settings: ModelSettings, shapes: Shapes) -> Array:
    largest = 2.0 if name == STRENGTH else 1.0
    return inverse_softplus(rng.uniform(SMALLEST_INITIAL, largest, shapes[name]))


def bias(parameters: Parameters, queries: Tensor, keys: Tensor, _heads: int) -> Tensor:
    """Return ``[*, heads, m, n]``."""
    strength, rate = (
        functional.softplus(parameters[name])[..., None, None] for name in (STRENGTH, RATE)
    )
    return -strength * (rate * key_distances(queries, keys)).log1p()


def _id_bias(parameters: Parameters, ids: Tensor, _heads: int) -> Tensor:
    """Return the bias of the absolute difference, 0 where a token has no id."""
    differences, known = id_differences(ids)
    strength, rate = (
        functional.softplus(parameters[name])[:, None, None] for name in (STRENGTH, RATE)
    )
    return -strength * (rate * differences.abs() * known).log1p()


ENCODING = Encoding(
    label="Kerple",
    colour="#c2418a",
    shapes=_shapes,
    draw=_draw,
    bias=bias,
    on_ids=OnIds(bias=_id_bias),
)
