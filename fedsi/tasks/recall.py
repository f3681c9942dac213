"""The task of associative recall: several pairs of a key and a value, then queries for all of them.

A sequence with n pairs has 8 n tokens besides ``bos`` and ``eos``: the pairs, the mark ``|``, and
the n keys in another order, each followed by its value, at random places among fillers::

    AqCb|..Cb....Aq.

Only the value after a query is asked. Keys are drawn without replacement from 26 upper-case
letters, values independently from 26 lower-case ones. A length is n, the number of pairs.

Source: Arora et al., "Zoology" (arXiv 2312.04927), whose queries are near their pairs more often;
here all places after the mark have the same probability.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from fedsi.data.generated import Generation, Size
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, PAD, Tokens
from fedsi.errors import UserError
from fedsi.experiment import TaskSettings
from fedsi.tasks import answers
from fedsi.tasks.task import Batch, Counts

KEYS, VALUES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
FIRST_VALUE = FIRST_WORD + len(KEYS)
MARK = FIRST_VALUE + len(VALUES)
FILLER = MARK + 1
NAMES = ("loss", "exact_match", "token_accuracy")


def _symbols(_settings: TaskSettings) -> str:
    return f"{KEYS}{VALUES}|."


def _sizes(settings: TaskSettings) -> Sequence[Size]:
    if settings.longest > len(KEYS):
        raise UserError(
            f"task.longest = {settings.longest} pairs need as many keys, and recall has "
            f"{len(KEYS)}; lower it"
        )
    return answers.sizes_between(settings)


def _parse(_settings: TaskSettings, text: str) -> Size:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= len(KEYS)):
        raise ValueError(
            f"{text!r} is no length of recall; give a number of pairs from 1 to {len(KEYS)}"
        )
    return (int(text),)


def _width(_settings: TaskSettings, size: Size) -> int:
    return 8 * size[0] + 2


def _draw(_settings: TaskSettings, size: Size, count: int, rng: np.random.Generator) -> Tokens:
    (pairs,) = size
    every = np.broadcast_to(np.arange(len(KEYS)), (count, len(KEYS)))
    keys = FIRST_WORD + rng.permuted(every, axis=1)[:, :pairs]
    values = rng.integers(FIRST_VALUE, MARK, (count, pairs))
    rows = np.full((count, 8 * pairs + 2), FILLER, np.int32)
    rows[:, 0], rows[:, -1], rows[:, 2 * pairs + 1] = BOS, EOS, MARK
    rows[:, 1 : 2 * pairs + 1 : 2], rows[:, 2 : 2 * pairs + 2 : 2] = keys, values
    # Of the 5 n - 1 places in which a query counts as one, n are queries; each then takes two.
    order = rng.permuted(np.broadcast_to(np.arange(pairs), (count, pairs)), axis=1)
    slots = rng.permuted(np.broadcast_to(np.arange(5 * pairs - 1), (count, 5 * pairs - 1)), axis=1)
    places = 2 * pairs + 2 + np.sort(slots[:, :pairs], axis=1) + np.arange(pairs)
    np.put_along_axis(rows, places, np.take_along_axis(keys, order, 1), 1)
    np.put_along_axis(rows, places + 1, np.take_along_axis(values, order, 1), 1)
    return rows


def batch(rows: Tokens) -> Batch:
    """Return the batch of rows ``[batch, tokens]``: the values after queries are targets."""
    answered = answers.answers_after(rows, MARK)
    queried = (answered.inputs >= FIRST_WORD) & (answered.inputs < FIRST_VALUE)
    targets = np.where(queried, answered.targets, PAD).astype(np.int32)
    return Batch(answered.inputs, targets)


def counts(outputs: Tensor, asked: Batch, _unigram: Tensor) -> Counts:
    """Compute the counts of some outputs, as ``answer_counts``; no target decides an end."""
    return answers.answer_counts(outputs, asked, ())


def recall_metrics(rows: Counts) -> Mapping[str, float]:
    """Turn clients' counts ``[clients, columns]`` into the metrics in ``NAMES``."""
    found = answers.answer_metrics(rows)
    return {name: found[name] for name in NAMES}


TASK = replace(
    answers.asking_task(
        batch,
        "token_accuracy",
        Generation(
            symbols=_symbols,
            sizes=_sizes,
            parse=_parse,
            width=_width,
            draw=_draw,
            what="pairs",
        ),
    ),
    counts=counts,
    names=NAMES,
    metrics=recall_metrics,
    labels={name: answers.LABELS[name] for name in NAMES},
    ratios={name: answers.RATIOS[name] for name in NAMES[1:]},
    unit="values",
)
