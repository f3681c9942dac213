"""Custom tasks, named by their import path, ``my_module:TASK``.

Their results are checked at every call, and errors name the user's file and line. Clients must have
the same bits wherever they train, so a task whose results do not depend only on the arguments is
refused before the first round.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedsi.blame import blamed, kind_of, place_of, without_global_draws
from fedsi.data.generated import Generation, Size
from fedsi.data.protocol import BOS, EOS, FIRST_WORD, PAD, Tokens
from fedsi.errors import UserError
from fedsi.experiment import TaskSettings
from fedsi.tasks.task import FIRST_COLUMNS, Batch, Counts, Task, cross_entropy

_TRIAL_LENGTHS = (8, 4, 2)
"""Numbers of tokens in the rows of a trial."""


def checked_task(path: str, own: Task) -> Task:
    """Return a user's task with functions that are checked at each call.

    Args:
        path: Its import path, for messages.
        own: The user's task.

    Raises:
        UserError: Its names contradict each other.
    """
    _check_names(path, own)

    def batch(rows: Tokens) -> Batch:
        return _batch(path, own, rows)

    def counts(outputs: Tensor, asked: Batch, unigram: Tensor) -> Counts:
        return _counts(path, own, outputs, asked, unigram)

    def metrics(rows: Counts) -> Mapping[str, float]:
        return _metrics(path, own, rows)

    def losses(outputs: Tensor, targets: Tensor) -> Tensor:
        return _losses(path, own, outputs, targets)

    def highest_loss(vocabulary_size: int) -> float:
        with blamed(f"highest_loss of {path} failed"):
            return float(own.highest_loss(vocabulary_size))

    by_entropy = own.losses is cross_entropy  # it has kernels
    return replace(
        own,
        batch=batch,
        counts=counts,
        metrics=metrics,
        losses=cross_entropy if by_entropy else losses,
        highest_loss=highest_loss,
        generation=own.generation and checked_generation(path, own.generation),
    )


def checked_generation(path: str, own: Generation) -> Generation:
    """Return a user's way of making examples with functions that are checked at each call.

    Args:
        path: The import path of its task, for messages.
        own: The user's way.
    """

    def checked(name: str) -> Callable[..., Any]:
        return lambda *given: _called(path, f"generation.{name}", getattr(own, name), *given)[0]

    def draw(settings: TaskSettings, size: Size, count: int, rng: np.random.Generator) -> Tokens:
        given = (settings, size, count, rng)
        found, called = _called(path, "generation.draw", own.draw, *given)
        expected, ids = own.width(settings, size), FIRST_WORD + len(own.symbols(settings))
        if _form(found) != f"int32 [{count}, {expected}]":
            raise UserError(
                f"{called} returned {_form(found)} for {count} examples of {expected} tokens each; "
                f"return int32 [{count}, {expected}]"
            )
        rows: Tokens = found
        ends = bool((rows[:, 0] == BOS).all() and (rows[:, -1] == EOS).all())
        if not ends or rows.min(initial=0) < 0 or rows.max(initial=0) >= ids:
            raise UserError(
                f"{called} returned rows that do not begin with bos ({BOS}) and end with eos "
                f"({EOS}), or have other ids than those of its symbols, {FIRST_WORD} to {ids - 1}"
            )
        return rows

    symbols, sizes, width = map(checked, ("symbols", "sizes", "width"))
    return replace(own, draw=draw, symbols=symbols, sizes=sizes, width=width)


def try_task(path: str, task: Task, vocabulary_size: int, settings: TaskSettings) -> None:
    """Refuse a task that draws random numbers, keeps state, or returns unusable results.

    Args:
        path: Its import path, for messages.
        task: The result of ``checked_task``.
        vocabulary_size: Number of token ids, special tokens included.
        settings: Its keys.

    Raises:
        UserError: A function is faulty; names it, its fault, and its file and line.
    """
    first, second = (_trial(path, task, vocabulary_size, settings) for _ in range(2))
    for name, value in first.items():
        if not np.array_equal(value, second[name], equal_nan=True):
            raise UserError(
                f"{name} of {path} returns something else when called again with the same "
                "arguments; it must draw no random numbers and keep no state"
            )


def _trial_rows(
    task: Task, vocabulary_size: int, settings: TaskSettings, rng: np.random.Generator
) -> Tokens:
    """Return rows of random ids, or the task's own examples if it makes them."""
    if task.generation:
        size = task.generation.sizes(settings)[-1]
        return task.generation.draw(settings, size, len(_TRIAL_LENGTHS), rng)
    rows = rng.integers(1, vocabulary_size, (len(_TRIAL_LENGTHS), max(_TRIAL_LENGTHS)), np.int32)
    for row, length in zip(rows, _TRIAL_LENGTHS, strict=True):
        row[length:] = PAD
    return rows


def _trial(path: str, task: Task, vocabulary_size: int, settings: TaskSettings) -> dict[str, Any]:
    """Call every function of a task once, and return the results as arrays."""
    rng = np.random.default_rng(0)
    rows = _trial_rows(task, vocabulary_size, settings, rng)
    batch = task.batch(rows)
    targets = torch.from_numpy(batch.targets[batch.asked]).long()
    if not batch.count:
        raise UserError(f"batch of {path} has no targets; give some positions a target")
    if targets.max() >= vocabulary_size:
        raise UserError(
            f"batch of {path} has the target {int(targets.max())}, but a model has outputs for the "
            f"{vocabulary_size} ids of the vocabulary; keep targets below that"
        )
    outputs = torch.from_numpy(rng.standard_normal((batch.count, vocabulary_size), np.float32))
    unigram = torch.full((vocabulary_size,), -math.log(vocabulary_size), dtype=torch.float64)
    losses = task.losses(outputs.requires_grad_(), targets)
    with blamed(f"losses of {path} cannot be differentiated"):
        torch.autograd.grad(losses.sum(), outputs)
    counts = task.counts(outputs.detach(), batch, unigram)
    return {
        "rows": rows,
        "batch": np.stack([batch.inputs, batch.targets, *_ids_of(batch)]),
        "losses": losses.detach().numpy(),
        "counts": counts,
        "metrics": np.array(list(task.metrics(counts[None]).values())),
        "highest_loss": task.highest_loss(vocabulary_size),
    }


def _ids_of(batch: Batch) -> Sequence[Any]:
    """Return the streams of position ids; none if there are none."""
    return [] if batch.positions is None else list(batch.positions)


def _check_names(path: str, own: Task) -> None:
    wrong = {
        f"columns must begin with {', '.join(FIRST_COLUMNS)}": own.columns[:3] != FIRST_COLUMNS,
        "the first of names must be loss": own.names[:1] != ("loss",),
        f"score {own.score} must be one of names": own.score not in own.names,
        f"deciding {own.deciding} must be loss, or the score if it has a curve": own.deciding
        not in {"loss", *({own.score} & own.curves.keys())},
        "curves must be names of metrics": not set(own.curves) <= set(own.names),
        "at_most must have names of columns": not set(own.at_most) <= set(own.columns[3:]),
        "labels must have names of metrics": not set(own.labels) <= set(own.names),
        "ratios must have names of columns": not {c for pair in own.ratios.values() for c in pair}
        <= set(own.columns),
    }
    for sentence, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(f"the task {path} contradicts itself: {sentence}")


def _called(path: str, name: str, function: Callable[..., object], *given: Any) -> tuple[Any, str]:
    """Call a user's function; return its result and its name for messages."""
    called = f"{name} of {path}{place_of(function)}"
    with without_global_draws(called), blamed(f"{name} of {path} failed"):
        return function(*given), called


def _batch(path: str, own: Task, rows: Tokens) -> Batch:
    found, called = _called(path, "batch", own.batch, rows)
    if not isinstance(found, Batch):
        raise UserError(f"{called} returned {kind_of(found)}; return a Batch of fedsi.tasks.task")
    arrays = (found.inputs, found.targets)
    forms = [_form(array) for array in arrays]
    fits = all(isinstance(array, np.ndarray) and array.dtype == np.int32 for array in arrays)
    if not fits or forms[0] != forms[1] or len(found) != len(rows) or found.inputs.ndim != 2:
        raise UserError(
            f"{called} returned inputs {forms[0]} and targets {forms[1]} for rows {_form(rows)}; "
            "return two int32 arrays of one shape, [rows, time]"
        )
    _check_ids(called, own, found)
    return found


def _check_ids(called: str, own: Task, batch: Batch) -> None:
    """Refuse position ids that do not fit a batch.

    Raises:
        UserError: Their type, shape or range is wrong.
    """
    ids, shape = batch.positions, [own.streams, *batch.inputs.shape]
    if ids is None and not own.streams:
        return
    if not own.streams or _form(ids) != f"int64 {shape}":
        raise UserError(
            f"{called} returned positions {_form(ids)}, and the task has {own.streams} streams of "
            f"ids (streams) and inputs {list(batch.inputs.shape)}; return an int64 array "
            "[streams, rows, time], or leave out positions with streams=0"
        )
    if ids is not None and ids.min(initial=0) < -1:
        raise UserError(
            f"{called} returned the position id {ids.min()}; ids count from 0, and -1 is that of "
            "a token without one"
        )


def _counts(path: str, own: Task, outputs: Tensor, asked: Batch, unigram: Tensor) -> Counts:
    found, called = _called(path, "counts", own.counts, outputs, asked, unigram)
    if _form(found) != f"float64 [{len(own.columns)}]":
        raise UserError(
            f"{called} returned {_form(found)}; return a float64 array with one number for each "
            f"column, [{len(own.columns)}]"
        )
    if (found[0], found[1]) != (len(asked), asked.count):
        raise UserError(
            f"{called} counted {found[0]:g} examples and {found[1]:g} tokens, but the batch has "
            f"{len(asked)} rows and {asked.count} targets; return these counts first"
        )
    return np.asarray(found)


def _metrics(path: str, own: Task, rows: Counts) -> Mapping[str, float]:
    found, called = _called(path, "metrics", own.metrics, rows)
    if not isinstance(found, Mapping) or tuple(found) != own.names:
        raise UserError(
            f"{called} returned {list(found) if isinstance(found, Mapping) else kind_of(found)}; "
            f"return a dict of numbers with the names of the task, {list(own.names)}"
        )
    with blamed(f"{called} returned a value that is not a number"):
        return {name: float(value) for name, value in found.items()}


def _losses(path: str, own: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    found, called = _called(path, "losses", own.losses, outputs, targets)
    if not isinstance(found, Tensor) or found.shape != targets.shape:
        raise UserError(
            f"{called} returned {_form(found)} for {len(targets)} targets; return a tensor with "
            f"the loss of each, [{len(targets)}]"
        )
    return found


def _form(array: object) -> str:
    """Return the type and shape of an array or a tensor; the kind of anything else."""
    if not isinstance(array, np.ndarray | Tensor):
        return kind_of(array)
    return f"{array.dtype} {list(array.shape)}"
