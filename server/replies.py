"""Validation of nodes' replies, so that no reply can spoil the model or end a run.

A reply is accepted if the settings allow it: an update within the limits of all its clients, and
consistent counts. A node with any other reply has failed. Within these limits nothing can be
verified: a node that lies about its losses is believed.
"""

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from fedsi.data.population import Description, Shard
from fedsi.data.protocol import FIRST_WORD
from fedsi.data.vocabulary import VOCABULARY_FILES, WORDS_FILE, WordVocabulary
from fedsi.experiment import Experiment
from fedsi.learning.algorithms.table import algorithm_of
from fedsi.limits import FRACTION_BITS, largest_contribution
from fedsi.messages import (
    AVX_512,
    FAILED,
    LOST,
    TRAINING_COLUMNS,
    Described,
    Estimated,
    Evaluated,
    FetchedVocabulary,
    Outcome,
    Resolved,
    Revealed,
    TakenInventory,
    Trained,
    TrainedPooled,
    evaluated,
)
from fedsi.models.inventory import Inventory
from fedsi.sums.secure.masked_round import MaskedRound
from fedsi.sums.secure.shares import SHARE_BYTES
from fedsi.sums.totals import COUNTS, Totals
from fedsi.tasks.table import task_of
from fedsi.tasks.task import FIRST_COLUMNS

MOST = 2**40
"""Largest accepted count where no setting limits it."""
MOST_CLIENTS, MOST_TOKEN_IDS, LONGEST = 10**9, 10**7, 2**20
"""Largest accepted population, vocabulary and sequence."""
_FLOAT32 = 1e-5
"""Relative error that exceeds that of the norm of a vector scaled in float32."""
ROUNDING = 1e-3
"""Amount in nats by which the computed loss of a target may be below 0."""

_DESCRIPTION = TypeAdapter(Description)
_INVENTORY = TypeAdapter(Inventory)
_OUTCOMES = [float(outcome) for outcome in Outcome if outcome not in LOST]
_PART = 1 << 14
_CLOSE = 1e-9
"""Relative error that exceeds by far that of a sum of squares in floats."""

ReplyColumns = dict[str, NDArray[np.float64]]


class ReplyError(Exception):
    """A reply that no honest node sends."""


def check_trained(
    trained: Trained, experiment: Experiment, clients: int, parameters: int, clip_norm: float
) -> None:
    """Check the reply to ``Train``.

    Args:
        trained: The reply.
        experiment: The configuration.
        clients: Number of clients requested.
        parameters: Number of the model's parameters.
        clip_norm: Largest L2 norm of a client's update; infinite without clipping.

    Raises:
        ReplyError: No honest node sends it.
    """
    algorithm = algorithm_of(experiment)
    apart = algorithm.aggregate is not None
    _check_shape("sums", trained.sums, (0 if apart else parameters,))
    _check_shape("updates", trained.updates, (clients * parameters if apart else 0,))
    vectors = len(algorithm.returned)
    _check_shape("returned", trained.returned, (vectors * parameters,))
    _check_shape("rows", trained.rows, (clients, len(TRAINING_COLUMNS)))
    masked = experiment.privacy.secure_aggregation
    _check_shape("counts", trained.counts, (COUNTS if masked else 0,))
    if masked:
        _check_only_outcomes(trained.rows)
        return
    columns = dict(zip(TRAINING_COLUMNS, trained.rows.T, strict=True))
    with np.errstate(all="ignore"):
        _check_outcomes(columns, by_examples=experiment.server.averaging == "examples")
        _check_amounts(columns, experiment)
        _check_clipping(columns, clips=_clips(experiment, clip_norm))
    if apart:
        _check_updates(trained.updates.reshape(clients, parameters), columns, experiment)
    # The weight is 0 for clients that were not accepted and for clients without an example.
    adding, weight = int((columns["weight"] > 0).sum()), float(columns["weight"].sum())
    _check_sums([trained.sums, trained.returned], experiment, adding, weight, clip_norm)


def check_unmasked(
    sums: Sequence[NDArray[np.int64]],
    totals: Totals,
    experiment: Experiment,
    clients: int,
    clip_norm: float,
) -> None:
    """Check the sums of a round after their masks were removed.

    Args:
        sums: The sum of the updates, and those of the vectors that the algorithm returns.
        totals: The totals of the clients' counts.
        experiment: The configuration.
        clients: Number of clients in the sums.
        clip_norm: Largest L2 norm of a client's update; infinite without clipping.

    Raises:
        ReplyError: Honest nodes' sums are not so large, or their counts contradict each other.
    """
    _check_sums(sums, experiment, clients, totals.weight, clip_norm)
    by_examples = experiment.server.averaging == "examples"
    most = clients * _most_examples(experiment)
    right = {
        "weight": totals.weight == (totals.examples if by_examples else clients),
        "examples": 0 <= totals.examples <= most,
        "tokens": 0 <= totals.tokens <= totals.examples * LONGEST,
        "clipped": 0 <= totals.clipped <= (clients if _clips(experiment, clip_norm) else 0),
        "steps": 0 <= totals.steps <= clients * MOST,
        "clipped_steps": 0 <= totals.clipped_steps <= totals.steps,
        "loss": totals.loss >= -ROUNDING * totals.tokens,
        "tokens_with_loss": 0 <= totals.tokens_with_loss <= totals.tokens,
    }
    for name, possible in right.items():
        if not possible:
            raise ReplyError(f"the clients have {name} = {getattr(totals, name):g} together")


def check_revealed(reply: Revealed, masked: MaskedRound) -> None:
    """Check the reply to ``Reveal``.

    Raises:
        ReplyError: A share has another size, or is of a client, or of a holder, that has none.
    """
    _check_shape("holders", reply.holders, reply.owners.shape)
    _check_shape("shares", reply.shares, (SHARE_BYTES // 8 * len(reply.owners),))
    for owner, holder in zip(reply.owners.tolist(), reply.holders.tolist(), strict=True):
        if owner not in masked.graph or holder not in masked.holders(owner):
            raise ReplyError(f"client {holder} holds no share of client {owner}")


def check_pooled(
    reply: TrainedPooled, experiment: Experiment, clients: int, parameters: int, memory: int
) -> None:
    """Check the reply to ``TrainPooled``.

    Args:
        reply: The reply.
        experiment: The configuration.
        clients: Number of clients requested.
        parameters: Number of the model's parameters.
        memory: Numbers that the learner's optimizer remembers.

    Raises:
        ReplyError: No honest node sends it.
    """
    _check_shape("parameters", reply.parameters, (parameters,))
    _check_shape("memory", reply.memory, (memory,))
    _check_shape("rows", reply.rows, (clients, len(TRAINING_COLUMNS)))
    columns = dict(zip(TRAINING_COLUMNS, reply.rows.T, strict=True))
    with np.errstate(all="ignore"):
        _check_outcomes(columns, by_examples=experiment.server.averaging == "examples")
        _check_amounts(columns, experiment)
        _check_clipping(columns, clips=False)
    if not np.isfinite(reply.parameters).all():
        raise ReplyError("its parameters are not finite")


def check_evaluated(
    reply: Evaluated, experiment: Experiment, clients: int, most_examples: int
) -> None:
    """Check the reply to ``Evaluate``.

    Losses may be infinite or NaN, as those of a diverged model are.

    Args:
        reply: The reply.
        experiment: The experiment.
        clients: Requested clients.
        most_examples: Held-out examples of the whole population.

    Raises:
        ReplyError: No honest node sends it.
    """
    _check_shape("rows", reply.rows, (clients, len(task_of(experiment).columns)))
    _check_counts(reply.rows[evaluated(reply.rows)], experiment, most_examples)


def check_personalised(
    reply: Evaluated, experiment: Experiment, clients: int, most_examples: int
) -> None:
    """Check the reply to ``Personalise`` as ``check_evaluated`` does.

    Raises:
        ReplyError: No honest node sends it.
    """
    _check_shape("rows", reply.rows, (clients, 2 * len(task_of(experiment).columns)))
    before, after = np.hsplit(reply.rows[evaluated(reply.rows)], 2)
    for rows in (before, after):
        _check_counts(rows, experiment, most_examples)
    _demand("examples", after[:, 0], after[:, 0] == before[:, 0])
    _demand("tokens", after[:, 1], after[:, 1] == before[:, 1])


def _check_counts(rows: NDArray[np.float64], experiment: Experiment, most_examples: int) -> None:
    """Check counts of clients that were evaluated, ``[clients, columns of the task]``."""
    task = task_of(experiment)
    columns = dict(zip(task.columns, rows.T, strict=True))
    examples, tokens, _ = (columns[name] for name in FIRST_COLUMNS)
    with np.errstate(all="ignore"):
        _demand("examples", examples, _is_count(examples, most_examples))
        _demand("tokens", tokens, _is_count(tokens, examples * LONGEST))
        for name, others in task.at_most.items():
            for other in others:
                _demand(name, columns[name], _is_count(columns[name], columns[other]))
        for name in columns.keys() - {"examples", "tokens", *task.at_most}:
            _demand(name, columns[name], _is_loss(columns[name], tokens))


def checked_description(answer: Described) -> tuple[Description, Shard, str]:
    """Return a node's description of its population, its shard, and what its processor lacks.

    Raises:
        ReplyError: No population has this description.
    """
    try:
        found = _DESCRIPTION.validate_json(answer.description)
    except ValidationError:
        raise ReplyError("it sent an invalid description") from None
    ranges = {
        "training_clients": (0, MOST_CLIENTS),
        "heldout_clients": (0, MOST_CLIENTS),
        "training_examples": (0, MOST),
        "heldout_examples": (0, MOST),
        "vocabulary_size": (FIRST_WORD, MOST_TOKEN_IDS),
        "sequence_length": (1, LONGEST),
    }
    for name, (least, most) in ranges.items():
        if not least <= getattr(found, name) <= most:
            raise ReplyError(f"its population has {name} = {getattr(found, name)}")
    if found.heldout_examples and not 0 <= found.unigram_loss < math.inf:
        raise ReplyError(f"its population has unigram_loss = {found.unigram_loss}")
    if not 0 <= answer.shard < answer.shards <= MOST_CLIENTS:
        raise ReplyError(f"it hosts shard {answer.shard} of {answer.shards}")
    if answer.lacking not in {"", AVX_512}:
        raise ReplyError("it lacks something that no run needs")
    return found, Shard(answer.shard, answer.shards), answer.lacking


def checked_inventory(answer: TakenInventory) -> Inventory:
    """Return the inventory of a node's model.

    Raises:
        ReplyError: It is malformed.
    """
    try:
        return _INVENTORY.validate_json(answer.inventory)
    except ValidationError:
        raise ReplyError("it sent an invalid description of its model") from None


def checked_vocabulary(answer: FetchedVocabulary) -> tuple[str, str]:
    """Return the name and the text of a vocabulary's file.

    Raises:
        ReplyError: It is not a vocabulary.
    """
    try:
        text = json.loads(answer.content)
        if answer.file_name not in VOCABULARY_FILES or not isinstance(text, str):
            raise ReplyError("it sent no vocabulary")
        if answer.file_name == WORDS_FILE:
            WordVocabulary.from_text(text)
        else:
            json.loads(text)
    except (ValueError, RecursionError):
        raise ReplyError("it sent an invalid vocabulary") from None
    return answer.file_name, text


def checked_clients(answer: Resolved, *, names: int, population: int) -> NDArray[np.int64]:
    """Return the indices of clients, -1 for unknown ones: ``[names]``.

    Raises:
        ReplyError: They are not indices in a population of this size.
    """
    _check_shape("clients", answer.clients, (names,))
    _demand("clients", answer.clients, (answer.clients >= -1) & (answer.clients < population))
    return answer.clients


def checked_work(answer: Estimated, *, clients: int) -> NDArray[np.int64]:
    """Return the work of clients, ``[clients]``.

    Raises:
        ReplyError: It is negative or implausibly large.
    """
    _check_shape("work", answer.work, (clients,))
    _demand("work", answer.work, (answer.work >= 0) & (answer.work <= MOST))
    return answer.work


def _check_outcomes(columns: ReplyColumns, *, by_examples: bool) -> None:
    outcome = columns["outcome"]
    _demand("outcome", outcome, np.isin(outcome, _OUTCOMES))
    weight = columns["examples"] if by_examples else 1.0
    right = np.where(outcome == Outcome.AGGREGATED, weight, 0.0)
    _demand("weight", columns["weight"], columns["weight"] == right)
    for name in TRAINING_COLUMNS[1:]:
        _demand(name, columns[name], ~np.isin(outcome, list(FAILED)) | (columns[name] == 0))


def _check_only_outcomes(rows: NDArray[np.float64]) -> None:
    """Refuse rows that have more than an outcome, which masks are there to hide."""
    outcome, others = rows[:, 0], rows[:, 1:]
    _demand("outcome", outcome, np.isin(outcome, _OUTCOMES))
    if others.any():
        raise ReplyError("a client's row has more than its outcome")


def _clips(experiment: Experiment, clip_norm: float) -> bool:
    return math.isfinite(clip_norm) or experiment.server.norm_bound is not None


def _check_updates(
    updates: NDArray[np.float32], columns: ReplyColumns, experiment: Experiment
) -> None:
    """Refuse updates that are not those of aggregated clients within the bounds."""
    limit = largest_contribution(experiment.server.largest_cohort)
    accepted = columns["outcome"] == Outcome.AGGREGATED
    for update, is_in in zip(updates, accepted, strict=True):
        most = limit * (1 + _FLOAT32) if is_in else 0.0
        # Written as a comparison that is false for NaN, so that NaN is refused.
        if not np.abs(update).max(initial=0) <= most:
            raise ReplyError("a client's update is beyond what it may add")
        bound = experiment.server.norm_bound
        if bound is not None and np.linalg.norm(update.astype(np.float64)) > bound * (1 + _FLOAT32):
            raise ReplyError("a client's update is beyond server.norm_bound")


def _check_sums(
    sums: Sequence[NDArray[np.int64]],
    experiment: Experiment,
    adding: int,
    weight: float,
    clip_norm: float,
) -> None:
    """Refuse sums that so many clients cannot add up to; the first is that of the updates."""
    bound_of_one = experiment.server.norm_bound
    if bound_of_one is not None:
        # Updates are scaled in float32, and their entries rounded to integers.
        rounding = Fraction(adding * math.isqrt(len(sums[0]) + 1) + adding)
        most = Fraction(weight * bound_of_one * (1 + _FLOAT32)) * 2**FRACTION_BITS + rounding
        if not _norm_within(sums[0], most):
            raise ReplyError(f"its sum is beyond server.norm_bound for {adding} clients")
    if math.isfinite(clip_norm):
        possible = _norm_within(sums[0], adding * Fraction(clip_norm) * 2**FRACTION_BITS)
    else:
        limit = np.float32(largest_contribution(experiment.server.largest_cohort))
        bound = adding * math.ceil(float(limit) * 2.0**FRACTION_BITS)
        possible = all(_entries_within(one, bound) for one in sums)
    if not possible:
        raise ReplyError(f"its sums are beyond what {adding} clients may add")


def _most_examples(experiment: Experiment) -> int:
    """Return the most examples that a client's training may use."""
    client = experiment.client
    if client.example_noise_multiplier is not None:  # each example is included by chance
        return MOST
    most = client.epochs * (experiment.data.max_examples_per_client or MOST)
    return most if client.max_steps is None else min(most, client.max_steps * client.batch_size)


def _check_amounts(columns: ReplyColumns, experiment: Experiment) -> None:
    examples, tokens = columns["examples"], columns["tokens"]
    _demand("examples", examples, _is_count(examples, _most_examples(experiment)))
    _demand("tokens", tokens, _is_count(tokens, examples * LONGEST))
    _demand("loss", columns["loss"], _is_loss(columns["loss"], tokens))
    steps, clipped = columns["steps"], columns["clipped_steps"]
    _demand("steps", steps, (steps >= 0) & (steps <= MOST))
    _demand("clipped_steps", clipped, (clipped >= 0) & (clipped <= steps))


def _check_clipping(columns: ReplyColumns, *, clips: bool) -> None:
    norm, clipped = columns["norm"], columns["clipped"]
    _demand("norm", norm, (norm >= 0) & (norm < math.inf) & (clips | (norm == 0)))
    possible = clips & (columns["outcome"] == Outcome.AGGREGATED)
    _demand("clipped", clipped, (clipped == 0) | (possible & (clipped == 1)))


def _check_shape(name: str, array: NDArray[Any], expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ReplyError(f"{name} has the shape {array.shape} instead of {expected}")


def _demand(name: str, values: NDArray[Any], right: NDArray[np.bool_]) -> None:
    if not right.all():
        raise ReplyError(f"a client has {name} = {values[int(np.argmin(right))]}")


def _is_count(values: NDArray[np.float64], most: Any) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (values >= 0) & (values <= most) & (values == np.floor(values))
    return right


def _is_loss(values: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which values may be losses of so many targets: those not clearly negative."""
    return np.where(targets > 0, ~(values < -ROUNDING * targets), values == 0)


def _entries_within(sums: NDArray[np.int64], bound: int) -> bool:
    # Compared as Python integers, because the magnitude of the smallest int64 is not an int64.
    return int(sums.max(initial=0)) <= bound and -int(sums.min(initial=0)) <= bound


def _norm_within(sums: NDArray[np.int64], bound: Fraction) -> bool:
    """Whether the L2 norm of integers is at most a bound, exactly."""
    parts: Sequence[NDArray[np.int64]] = [
        sums[first : first + _PART] for first in range(0, len(sums), _PART)
    ]
    squares, most = sum(map(_sum_of_squares, parts)), bound * bound
    if not most * (1 - _CLOSE) < squares <= most * (1 + _CLOSE):
        return bool(squares <= most)
    # Too close to decide in floats, which should not happen for a clipped sum.
    return bool(sum(value * value for part in parts for value in part.tolist()) <= most)


def _sum_of_squares(integers: NDArray[np.int64]) -> float:
    floats = integers.astype(np.float64)
    return float(floats @ floats)
