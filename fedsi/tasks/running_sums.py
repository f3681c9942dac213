"""Addition of several operands, whose answer is a scratchpad of running sums, or the sum alone.

With three operands of up to two digits::

    057+048+096=000>750>501>102        the running sums, from zero, each reversed
    057+048+096=102                    without the scratchpad

A size is (n, m): m operands drawn with n digits each, written ``n x m`` without spaces. All numbers
are padded with zeros to n digits and those of m - 1, which is enough for the sum of m numbers.

Coupled ids have two streams. *Significance*: the least significant digit of every number has 2, the
next one 3 and so on, and the marks ``+``, ``=`` and ``>`` have 1. *Index*: operand i and the ``+``
after it have i, counted from 1; running sum s and the mark before it have s + 1, counted from 0, so
that operand i shares its index with the sum of the operands before it. Without the scratchpad there
is the stream of significance alone. ``bos`` and ``eos`` have no ids.

Source: Cho et al. (arXiv 2410.15787), sections 4 and 5.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsi.data.generated import Size
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, Tokens
from fedsi.experiment import TaskSettings
from fedsi.tasks.arithmetic_text import (
    DIGITS,
    EQUALS,
    MORE,
    OPERATOR,
    Digits,
    Form,
    carried,
    check_questions,
    is_digit,
)
from fedsi.tasks.task import Ids

_SIZE = re.compile("([1-9][0-9]{0,8})x([1-9][0-9]{0,8})")


def _sizes(settings: TaskSettings) -> Sequence[Size]:
    return [
        (digits, operands)
        for digits in range(settings.shortest, settings.longest + 1)
        for operands in range(2, settings.operands + 1)
    ]


def _parse(text: str) -> Size:
    found = _SIZE.fullmatch(text)
    if not found or int(found[2]) < 2:
        raise ValueError(
            f"{text!r} is no length of additions with several operands; give digits x operands, "
            "with at least 2 operands, such as 6x4"
        )
    return int(found[1]), int(found[2])


def padded_digits(size: Size) -> int:
    """Return the number of digits to which all numbers are padded."""
    digits, operands = size
    return digits + len(str(operands - 1))


def _width(size: Size) -> int:
    return (2 * size[1] + 1) * (padded_digits(size) + 1) + 1


def _width_of_sum(size: Size) -> int:
    return (size[1] + 1) * (padded_digits(size) + 1) + 1


def _operands(size: Size, count: int, rng: np.random.Generator) -> Digits:
    """Draw operands, ``[count, operands, padded digits]``."""
    digits, operands = size
    drawn = rng.integers(0, 10, (count, operands, digits))
    return np.pad(drawn, ((0, 0), (0, 0), (0, padded_digits(size) - digits)))


def _written(operands: Digits, sums: Digits) -> Tokens:
    """Return additions as rows.

    Args:
        operands: ``[count, operands, digits]``.
        sums: The running sums of the answer, ``[count, sums, digits]``.
    """
    marks = np.ones((len(operands), 1), np.int64)
    parts = [BOS * marks]
    for place in range(operands.shape[1]):
        parts += [OPERATOR * marks] if place else []
        parts.append(FIRST_WORD + operands[:, place, ::-1])
    for place in range(sums.shape[1]):
        parts += [(MORE if place else EQUALS) * marks, FIRST_WORD + sums[:, place]]
    return np.concatenate([*parts, EOS * marks], axis=1).astype(np.int32)


def _draw(size: Size, count: int, rng: np.random.Generator) -> Tokens:
    operands = _operands(size, count, rng)
    zero = np.zeros_like(operands[:, :1])
    return _written(operands, carried(np.cumsum(np.concatenate([zero, operands], 1), 1)))


def _draw_sum(size: Size, count: int, rng: np.random.Generator) -> Tokens:
    operands = _operands(size, count, rng)
    return _written(operands, carried(operands.sum(1, keepdims=True)))


def significance(rows: Tokens) -> Ids:
    """Return the ids of significance, ``[batch, tokens]``."""
    check_questions(rows)
    digits = is_digit(rows)
    marks = (rows >= OPERATOR) & (rows <= MORE)
    places = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    before = np.maximum.accumulate(np.where(marks, places, 0), axis=1)
    far = np.where(marks, places, rows.shape[1])
    after = np.minimum.accumulate(far[:, ::-1], axis=1)[:, ::-1]
    answered = _answered(rows)
    ids = 1 + np.where(answered, places - before, after - places)
    return np.where(digits | marks, ids, -1)


def index(rows: Tokens) -> Ids:
    """Return the ids of the operands and of the running sums, ``[batch, tokens]``."""
    plus, more = rows == OPERATOR, rows == MORE
    operand = 1 + np.cumsum(plus, axis=1) - plus
    ids = np.where(_answered(rows), 1 + np.cumsum(more, axis=1), operand)
    return np.where(is_digit(rows) | (rows >= OPERATOR), ids, -1)


def _answered(rows: Tokens) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return which tokens belong to the answer or are the mark before it."""
    return np.cumsum(rows == EQUALS, axis=1) > 0


def coupled_ids(rows: Tokens) -> Ids:
    """Return both streams, ``[2, batch, tokens]``."""
    return np.stack([significance(rows), index(rows)])


RUNNING_SUMS = Form(
    symbols=f"{DIGITS}+=>",
    what="digits x operands",
    sizes=_sizes,
    parse=_parse,
    width=_width,
    draw=_draw,
    ids=coupled_ids,
    streams=2,
    stops=frozenset({EOS, MORE}),
)
SUM_ALONE = replace(
    RUNNING_SUMS,
    symbols=f"{DIGITS}+=",
    width=_width_of_sum,
    draw=_draw_sum,
    ids=lambda rows: significance(rows)[None],
    streams=1,
    stops=frozenset({EOS}),
)
