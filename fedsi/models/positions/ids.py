"""Position encodings on streams of ids that a task gives, instead of positions from 0 on.

Each stream has parameters of its own, and the effects of all streams are added. Parameters of the
first stream have the encoding's names, ``positions.table``; those of stream k have
``positions.k.table``.

Sources: Cho et al. (arXiv 2405.20671) for coupled ids, Cho et al. (arXiv 2410.15787) for several
streams.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsi.errors import UserError
from fedsi.experiment import ModelSettings
from fedsi.models.parameters import Parameters
from fedsi.models.positions.encoding import OnIds
from fedsi.models.positions.table import ENCODINGS

Rotation = Callable[[Tensor], Tensor]
"""Rotates queries or keys, ``[*, batch, heads, time, head size]``."""


def stream_name(name: str, stream: int) -> str:
    """Return the name of an encoding's parameter in a stream."""
    room, _, own = name.partition(".")
    return f"{room}.{stream}.{own}" if stream else name


def own_name(name: str) -> str:
    """Return the encoding's own name of a parameter, the inverse of ``stream_name``."""
    room, stream, own = name.split(".", 2) if name.count(".") > 1 else (name, "", "")
    return f"{room}.{own}" if stream.isdecimal() else name


def check_ids_allowed(positions: str, streams: int) -> None:
    """Refuse encodings that have no meaning for ids.

    Args:
        positions: Name of the encoding.
        streams: Number of streams of ids.

    Raises:
        UserError: It has none; says why, and which encodings have one.
    """
    encoding = ENCODINGS[positions]
    able = [
        name
        for name in ENCODINGS
        if (on_ids := ENCODINGS[name].on_ids) and (on_ids.several or streams == 1)
    ]
    if positions not in able:
        why = encoding.why_not or f"the effects of {streams} streams could not be told apart"
        raise UserError(
            f"model.positions={positions} has no meaning for the position ids of the task: {why}; "
            f"set model.positions to one of {', '.join(able)}, or task.ids=ordinary"
        )


def check_ids(settings: ModelSettings, ids: NDArray[np.int64]) -> None:
    """Refuse ids beyond the learned positions.

    Raises:
        UserError: There is one.
    """
    rows, largest = settings.longest_sequence, int(ids.max(initial=-1))
    if rows is not None and largest >= rows:
        raise UserError(
            f"the id {largest} is beyond the {rows} learned positions, which begin with 0; "
            "raise model.max_length and train again, choose shorter lengths, or use an "
            "encoding that extends to any length, such as model.positions=relative"
        )


@dataclass(frozen=True)
class IdEncoding:
    """The effects of a model's encoding on a batch with ids.

    Raises:
        UserError: An id is beyond the learned positions.
    """

    settings: ModelSettings
    parameters: Parameters
    ids: Tensor
    """``[streams, batch, time]``."""

    def __post_init__(self) -> None:
        check_ids(self.settings, self.ids.numpy())

    @property
    def _parts(self) -> OnIds:
        parts = ENCODINGS[self.settings.positions].on_ids
        assert parts, "such a model was refused"  # noqa: S101
        return parts

    def _own(self, stream: int) -> Parameters:
        """Return the parameters of a stream, by the encoding's own names."""
        names = ENCODINGS[self.settings.positions].shapes(self.settings)
        return {name: self.parameters[stream_name(name, stream)] for name in names}

    def embed(self, vectors: Tensor) -> Tensor:
        """Return the words' vectors ``[batch, time, size]`` with what the ids add to them."""
        if self._parts.embed:
            for stream, ids in enumerate(self.ids):
                vectors = self._parts.embed(self._own(stream), vectors, ids)
        return vectors

    def bias(self) -> Tensor | None:
        """Return the bias of the scores, ``[batch, heads, time, time]``, if there is one."""
        if not self._parts.bias:
            return None
        biases = [
            self._parts.bias(self._own(stream), ids, self.settings.heads)
            for stream, ids in enumerate(self.ids)
        ]
        return torch.stack(biases).sum(0) if len(biases) > 1 else biases[0]

    @property
    def rotate(self) -> Rotation | None:
        """The rotation of queries and keys, if there is one."""
        rotate = self._parts.rotate
        if not rotate:
            return None
        (ids,) = self.ids
        return lambda heads: rotate(heads, ids)
