"""Arithmetic as text: symbols, digits with carries, and the parts that each form of it defines.

Digits are arrays with the places along the last axis, the least significant first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsi.data.generated import Size
from fedsi.data.protocol import EOS, FIRST_WORD, Tokens
from fedsi.errors import UserError
from fedsi.experiment import TaskSettings
from fedsi.tasks.task import Ids

Digits = NDArray[np.int64]

DIGITS = "0123456789"
OPERATOR, EQUALS, MORE = (FIRST_WORD + len(DIGITS) + place for place in range(3))
"""Token ids of ``+`` or ``*``, of ``=``, and of ``>`` between running sums."""


@dataclass(frozen=True)
class Form:
    """A way of writing arithmetic: its sizes, its texts, and the ids of their tokens."""

    symbols: str
    """The vocabulary, in which ids are ``DIGITS``, ``OPERATOR``, ``EQUALS`` and ``MORE``."""
    what: str
    """Words for ``Generation.what``."""
    sizes: Callable[[TaskSettings], Sequence[Size]]
    parse: Callable[[str], Size]
    width: Callable[[Size], int]
    draw: Callable[[Size, int, np.random.Generator], Tokens]
    """``(size, count, generator)`` -> examples, ``[count, width]``."""
    ids: Callable[[Tokens], Ids]
    """Coupled ids of rows ``[batch, tokens]`` whose question is whole,
    ``[streams, batch, tokens]``."""
    streams: int = 1
    stops: frozenset[int] = frozenset({EOS})
    """Targets that decide whether an answer goes on."""


def carried(columns: Digits) -> Digits:
    """Return the digits of numbers whose places may exceed 9, ``[..., places]``."""
    digits = columns.copy()
    for place in range(digits.shape[-1] - 1):
        digits[..., place + 1] += digits[..., place] // 10
        digits[..., place] %= 10
    return digits


def check_questions(rows: Tokens) -> None:
    """Refuse rows from which ids cannot be told.

    Raises:
        UserError: A row has no operator followed by ``=``.
    """
    operator, equals = (np.argmax(rows == mark, axis=1) for mark in (OPERATOR, EQUALS))
    if not ((operator > 0) & (operator < equals)).all():
        raise UserError(
            "the position ids of arithmetic depend on the whole question, which ends with =; give "
            "all of it, such as 12+34="
        )


def is_digit(rows: Tokens) -> NDArray[np.bool_]:
    """Return which tokens are digits."""
    return np.asarray((rows >= FIRST_WORD) & (rows < OPERATOR))
