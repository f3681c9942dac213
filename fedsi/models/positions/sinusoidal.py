"""Sinusoidal positions, added to the word vectors; no parameters.

``p(i, 2k) = sin(i / 10000^(2k/size))`` and ``p(i, 2k+1) = cos(i / 10000^(2k/size))``.

Source: Vaswani et al. (arXiv 1706.03762), section 3.5.
"""

import torch
from torch import Tensor

from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Encoding, OnIds, frequencies


def embed(_parameters: Parameters, vectors: Tensor, positions: Tensor) -> Tensor:
    """Add the sines and cosines of each position."""
    return vectors + _waves(positions, vectors)


def _waves(positions: Tensor, vectors: Tensor) -> Tensor:
    """Return the sines and cosines of positions, ``[..., size]``, like ``vectors``."""
    size = vectors.shape[-1]
    angles = positions[..., None] * frequencies(size, positions.device)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :size].to(vectors.dtype)


def _embed_ids(_parameters: Parameters, vectors: Tensor, ids: Tensor) -> Tensor:
    """Add the sines and cosines of each id; nothing to tokens without one."""
    return vectors + _waves(ids, vectors) * (ids >= 0).unsqueeze(-1)


ENCODING = Encoding(
    label="sinusoidal",
    colour="#b8860b",
    embed=embed,
    on_ids=OnIds(embed=_embed_ids, several=False),
)
