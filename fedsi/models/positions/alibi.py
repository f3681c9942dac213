"""ALiBi: a bias linear in the distance, ``b(i, j) = -m_h (i - j)``; no parameters.

The slopes of n heads are ``m_h = 2^(-8 h / n)``, h = 1 ... n.

Source: Press, Smith and Lewis (arXiv 2108.12409), section 3. If n is not a power of two, the
authors' code uses other slopes; here the paper's formula holds for every n.
"""

import torch
from torch import Tensor

from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Encoding, key_distances


def bias(_parameters: Parameters, queries: Tensor, keys: Tensor, heads: int) -> Tensor:
    """Return ``[heads, m, n]``, float64."""
    exponents = torch.arange(1, heads + 1, dtype=torch.float64, device=queries.device)
    slopes = torch.exp2(-8.0 / heads * exponents)
    return -slopes[:, None, None] * key_distances(queries, keys)


ENCODING = Encoding(label="ALiBi", colour="#1f5fa8", bias=bias)
