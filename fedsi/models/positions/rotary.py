"""Rotary positions: queries and keys are rotated by angles that grow with the position.

Entries 2k and 2k+1 at position i are a point in the plane, rotated by the angle ``i *
10000^(-2k/head size)``. A score therefore depends only on the distance of its two positions. There
are no parameters; the head size must be even.

Source: Su et al., RoFormer (arXiv 2104.09864), equations 14 and 15.
"""

import torch
from torch import Tensor

from fedsi.models.positions.encoding import Encoding, OnIds, frequencies


def rotate(heads: Tensor, positions: Tensor) -> Tensor:
    """Rotate queries or keys ``[..., time, head size]`` at ``positions [time]``."""
    return _turned(heads, positions[:, None] * frequencies(heads.shape[-1], positions.device))


def _turned(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs of entries, ``[..., size]``, by their angles, ``[..., size / 2]``."""
    cosine, sine = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    first, second = heads[..., 0::2], heads[..., 1::2]
    turned = [first * cosine - second * sine, first * sine + second * cosine]
    return torch.stack(turned, -1).flatten(-2)


def _rotate_by_ids(heads: Tensor, ids: Tensor) -> Tensor:
    """Rotate at each token's id; a token without one as if it were 0."""
    angles = ids.clamp_min(0)[:, None, :, None] * frequencies(heads.shape[-1], ids.device)
    return _turned(heads, angles)


ENCODING = Encoding(
    label="rotary",
    colour="#c8500a",
    rotate=rotate,
    on_ids=OnIds(rotate=_rotate_by_ids, several=False),
)
