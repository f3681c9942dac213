"""ALiBi: a bias linear in the distance, ``b(i, j) = -m_h (i - j)``; no parameters.

The slopes of n heads are ``m_h = 2^(-8 h / n)``, h = 1 ... n.

Source: Press, Smith and Lewis (arXiv 2108.12409), section 3. If n is not a power of two, the
authors' code uses other slopes; here the paper's formula holds for every n.
"""

import torch
from torch import Tensor

from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Encoding, OnIds, id_differences, key_distances


def bias(_parameters: Parameters, queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Return ``[heads, m, n]``, float64."""
    return -_slopes(heads, queries.device) * key_distances(queries, keys)


def _slopes(heads: int, device: torch.device) -> Tensor:
    """Return ``[heads, 1, 1]``, float64."""
    exponents = torch.arange(1, heads + 1, dtype=torch.float64, device=device)
    return torch.exp2(-8.0 / heads * exponents)[:, None, None]


def _id_bias(_parameters: Parameters, ids: Tensor, heads: int) -> Tensor:
    """Return the bias of the absolute difference, 0 where a token has no id."""
    differences, known = id_differences(ids)
    return -_slopes(heads, ids.device) * differences.abs() * known


ENCODING = Encoding(label="ALiBi", colour="#1f5fa8", bias=bias, on_ids=OnIds(bias=_id_bias))
