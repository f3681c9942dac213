"""Sinusoidal positions, added to the word vectors; no parameters.

``p(i, 2k) = sin(i / 10000^(2k/size))`` and ``p(i, 2k+1) = cos(i / 10000^(2k/size))``.

Source: Vaswani et al. (arXiv 1706.03762), section 3.5.
"""

import torch
from torch import Tensor

from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import Encoding, frequencies


def embed(_parameters: Parameters, vectors: Tensor, positions: Tensor) -> Tensor:
    """Add the sines and cosines of each position."""
    size = vectors.shape[-1]
    angles = positions[:, None] * frequencies(size, positions.device)
    waves = torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[:, :size]
    return vectors + waves.to(vectors.dtype)


ENCODING = Encoding(label="sinusoidal", colour="#b8860b", embed=embed)
