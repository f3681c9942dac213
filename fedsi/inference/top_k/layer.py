"""The interface of output layers that give a few likely words.

An output layer has a row for each token id: the score of row i for a state h, the layer's input, is
``w_i h + b_i``. A layer of this room returns the k highest of the rows that are words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedsi.data.protocol import FIRST_WORD
from fedsi.errors import UserError
from fedsi.inference.reading import TrainedModel
from fedsi.models.layers import output_matrix

Array = NDArray[Any]

OPTION = "--output-layer"
CANDIDATES = "--candidates"
RANK = "--rank"


@dataclass(frozen=True)
class OutputRows:
    """An output layer's numbers, or those of some of its rows."""

    weight: Array
    """float32 ``[rows, size]``, contiguous."""
    bias: Array
    """float32 ``[rows]``."""
    first: int = FIRST_WORD
    """The first row that may be returned; those before are no words."""

    @property
    def size(self) -> int:
        """Length of a state."""
        return int(self.weight.shape[1])

    def __len__(self) -> int:
        return len(self.weight)


@dataclass(frozen=True)
class Highest:
    """The highest rows."""

    ids: Array
    """int64 ``[k]``, the highest first, of equal ones the lower id; fewer if there are fewer."""
    scores: Array
    """float32 ``[k]``."""
    of_all: Array
    """Scores of all rows, float32 ``[rows]``: exact where the layer computed them. The layer's next
    call overwrites them."""
    rescored: int = 0
    """Rows whose exact scores were computed after the cheap ones."""
    fell_back: bool = False
    """Whether cheap scores were not enough, so that all exact ones were computed."""


class TopK(Protocol):
    """An output layer, ready for states."""

    @property
    def bytes_read(self) -> int:
        """Bytes of the numbers that every call reads."""
        ...

    def best(self, state: Array, count: int) -> Highest:
        """Return the highest ``count`` rows for a state, float32 ``[size]``."""
        ...


@dataclass(frozen=True)
class Choice:
    """What a user may choose of an output layer; None leaves it to the layer."""

    count: int = 3
    """Words to return, k."""
    candidates: int | None = None
    """Rows whose exact scores are computed, k'."""
    rank: int | None = None
    """Numbers of a row that give its cheap score."""


@dataclass(frozen=True)
class LayerKind:
    """An entry of the table."""

    build: Callable[[OutputRows, Choice, Array], TopK]
    """Makes a layer for rows, a choice, and states to calibrate on, float32 ``[states, size]``."""
    label: str
    """Its name in reports."""
    keys: frozenset[str] = frozenset()
    """Options that it uses, of ``CANDIDATES`` and ``RANK``."""
    calibrated: bool = False
    """Whether ``build`` reads the states."""


def rows_of(trained: TrainedModel) -> OutputRows:
    """Return a model's output layer.

    Raises:
        UserError: It has none with a row for each word.
    """
    check_output_layer(trained)
    weight, bias = output_matrix(trained.model.settings, trained.parameters)
    return OutputRows(
        np.ascontiguousarray(weight.t().numpy(), np.float32),
        np.ascontiguousarray(bias.numpy(), np.float32),
    )


def check_output_layer(trained: TrainedModel) -> None:
    """Refuse a model without an output layer of one row for each word.

    Raises:
        UserError: It has none.
    """
    settings = trained.model.settings
    if settings.is_imported or not {"output.bias"} <= set(trained.parameters):
        raise UserError(
            f"{settings.architecture} has no output layer with a row for each word that could be "
            f"replaced; use {OPTION} exact"
        )


def check_choice(
    kind: LayerKind, name: str, choice: Choice, rows: OutputRows | None = None
) -> None:
    """Refuse numbers that a layer does not use or cannot have.

    Raises:
        UserError: One is given and has no effect, or is too small or too large.
    """
    for option, value in ((CANDIDATES, choice.candidates), (RANK, choice.rank)):
        if value is not None and option not in kind.keys:
            raise UserError(f"{option} {value} has no effect with {OPTION} {name}; leave it out")
    if choice.candidates is not None and choice.candidates < choice.count:
        raise UserError(
            f"{CANDIDATES} {choice.candidates} is below the {choice.count} words that are asked "
            f"for; give at least {choice.count}"
        )
    if rows is not None and choice.rank is not None and choice.rank > rows.size:
        raise UserError(
            f"{RANK} {choice.rank} is above the size of the output layer's states, {rows.size}; "
            f"give at most {rows.size}"
        )
