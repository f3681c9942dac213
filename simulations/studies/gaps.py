"""Differences between two arms of a study, and the conclusions they allow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from statistics import fmean
from typing import Any

import numpy as np

from fedsi.messages import evaluated
from fedsi.tasks.task import FIRST_COLUMNS
from simulations.studies.results import GridPoint, HeldoutPart, Setting, StudyResult, TrialResult
from simulations.studies.statistics import (
    FEWEST_SEEDS,
    Interval,
    area_over_logarithm,
    bootstrap_interval,
    bootstrap_of_metric,
    claim_interval,
    first_at_most,
    holm,
    t_test_p_value,
)


class Verdict(Enum):
    """The conclusion from a difference in the task's deciding metric, usually the loss."""

    NOT_MEASURED = "not measured"
    """One of the two has no loss, or no deciding metric."""
    USELESS = "not better than the unigram model"
    """One of the two is not better than the unigram model, so a ranking is meaningless."""
    FEW_SEEDS = "too few seeds"
    ONE_RUN = "one run for several seeds"
    """Seeds of one of the two ended with the same model."""
    NONE_SHOWN = "no difference shown"
    """The interval contains zero."""
    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True)
class Gap:
    """The difference of two settings, first minus second."""

    verdict: Verdict
    deciding: str
    """The metric that the verdict is about."""
    over_seeds: Mapping[str, Interval]
    """By metric: mean paired difference and its t interval over seeds, if they allow a claim."""
    over_clients: Mapping[int, Mapping[str, Interval]]
    """By seed and metric: difference and its paired bootstrap interval over clients; none of a
    seed whose runs were not evaluated on the same targets."""
    same_targets: bool = True
    """Whether the two were evaluated on the same targets of the same clients."""

    def without_clients(self) -> "Gap":
        """Return it without the intervals over clients, but with its seeds."""
        return replace(self, over_clients={seed: {} for seed in self.over_clients})

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can represent."""
        ranks = self.verdict in {Verdict.LOWER, Verdict.HIGHER}
        return {
            "verdict": f"{self.verdict.value} {self.deciding}" if ranks else self.verdict.value,
            "same_targets": self.same_targets,
            "t_over_seeds": {name: one.to_json() for name, one in self.over_seeds.items()},
            "bootstrap_over_clients": {
                str(seed): {name: one.to_json() for name, one in found.items()}
                for seed, found in self.over_clients.items()
            },
        }


def pairs(result: StudyResult) -> list[tuple[GridPoint, GridPoint]]:
    """Return the pairs of places that are compared.

    At each level every arm is compared with the first one; for each arm every level is compared
    with the first one.
    """
    first_level, first_arm = result.levels[0], result.arms[0]
    between_arms = [
        (GridPoint(level, arm), GridPoint(level, first_arm))
        for level in result.levels
        for arm in result.arms[1:]
    ]
    between_levels = [
        (GridPoint(level, arm), GridPoint(first_level, arm))
        for arm in result.arms
        for level in result.levels[1:]
    ]
    return between_arms + between_levels


def gap_between(result: StudyResult, first: GridPoint, second: GridPoint) -> Gap:
    """Return the differences of the chosen settings of two places."""
    one, other = (result.chosen(place) for place in (first, second))
    return gap(result, one, other)


def gap(result: StudyResult, one: Setting | None, other: Setting | None) -> Gap:
    """Return the differences of two settings, seed by seed and client by client."""
    paired, deciding = _paired(one, other), result.task.deciding
    if one is None or other is None or not paired:
        return Gap(Verdict.NOT_MEASURED, deciding, {}, {})
    over_seeds = {metric: _over_seeds(paired, metric, result.part) for metric in result.metrics}
    same = [_have_the_same_targets(a, b) for a, b in paired]
    over_clients = {
        a.trial.seed: _within(result, a, b) if alike else {}
        for (a, b), alike in zip(paired, same, strict=True)
    }
    return Gap(_verdict(result, one, other), deciding, over_seeds, over_clients, all(same))


def holm_p_values(result: StudyResult) -> dict[tuple[GridPoint, GridPoint], float]:
    """Return p values of the pairs that are compared, corrected for their number (Holm).

    They are those of Student's t over seeds, for differences in the task's deciding metric. Pairs
    without a claim, for example because of too few seeds, are not in it.
    """
    found, deciding = {}, result.task.deciding
    for first, second in pairs(result):
        one, other = result.chosen(first), result.chosen(second)
        if _verdict(result, one, other) in {Verdict.NONE_SHOWN, Verdict.LOWER, Verdict.HIGHER}:
            gaps = [_difference(a, b, deciding, result.part) for a, b in _paired(one, other)]
            found[first, second] = t_test_p_value(gaps)
    return dict(zip(found, holm(list(found.values())), strict=True))


def _verdict(result: StudyResult, one: Setting | None, other: Setting | None) -> Verdict:
    """Return the conclusion from the runs of two settings."""
    paired = _paired(one, other)
    if one is None or other is None or not paired:
        return Verdict.NOT_MEASURED
    useless = any(is_useless(result, setting) for setting in (one, other))
    if not useless and _is_one_run(paired):
        return Verdict.ONE_RUN
    between = _over_seeds(paired, result.task.deciding, result.part)
    return verdict_of(between, len(paired), useless=useless)


def _over_seeds(
    paired: list[tuple[TrialResult, TrialResult]], metric: str, part: HeldoutPart
) -> Interval:
    """Return the mean difference, with an interval if the seeds allow a claim."""
    found = claim_interval([_difference(a, b, metric, part) for a, b in paired])
    if _is_one_run(paired):
        return Interval(found.estimate, -math.inf, math.inf)
    return found


def _is_one_run(paired: list[tuple[TrialResult, TrialResult]]) -> bool:
    """Whether seeds of one of the two ended with the same model, so that they show no variation."""
    return any(
        len({one.summary.model_sha256 for one in runs}) < len(runs)
        for runs in zip(*paired, strict=True)
    )


def _paired(one: Setting | None, other: Setting | None) -> list[tuple[TrialResult, TrialResult]]:
    """Return the runs of two settings that have the same seed."""
    if one is None or other is None:
        return []
    by_seed = {r.trial.seed: r for r in other.results}
    return [(r, by_seed[r.trial.seed]) for r in one.results if r.trial.seed in by_seed]


def _have_the_same_targets(first: TrialResult, second: TrialResult) -> bool:
    """Whether two runs were evaluated on the same targets of the same clients.

    An axis over data can make a difference: in the corpus, the words, the clients that are held
    out, or how much of their texts is used.
    """
    one, other = first.summary, second.summary
    if (one.corpus_sha256, one.vocabulary_sha256) != (other.corpus_sha256, other.vocabulary_sha256):
        return False
    if first.measured is None or second.measured is None:
        return False
    if not np.array_equal(first.measured.clients, second.measured.clients):
        return False
    a, b = first.rows("all"), second.rows("all")
    both = evaluated(a) & evaluated(b)
    counts = [FIRST_COLUMNS.index(name) for name in ("examples", "tokens")]
    return np.array_equal(a[both][:, counts], b[both][:, counts])


def _difference(first: TrialResult, second: TrialResult, metric: str, part: HeldoutPart) -> float:
    """Return the difference of two runs in a metric, on the clients evaluated in both.

    A client that one of them could not evaluate would make the other look worse or better. Runs
    that were not evaluated on the same targets have no clients in common.
    """
    if not _have_the_same_targets(first, second):
        return first.metric(metric, part) - second.metric(metric, part)
    a, b = first.rows(part), second.rows(part)
    both = evaluated(a) & evaluated(b)
    metrics = first.task.metrics
    return metrics(a[both])[metric] - metrics(b[both])[metric]


def verdict_of(between: Interval, seeds: int, *, useless: bool) -> Verdict:
    """Return the conclusion from a difference in the deciding metric.

    Args:
        between: The difference and its interval over seeds.
        seeds: Number of seeds.
        useless: Whether one of the two is not better than the unigram model.
    """
    if useless:
        return Verdict.USELESS
    if math.isnan(between.estimate):
        return Verdict.NOT_MEASURED
    if seeds < FEWEST_SEEDS:
        return Verdict.FEW_SEEDS
    if between.holds_zero:
        return Verdict.NONE_SHOWN
    return Verdict.LOWER if between.estimate < 0 else Verdict.HIGHER


def is_useless(result: StudyResult, setting: Setting) -> bool:
    """Whether a setting is not better than the unigram model on the same targets."""
    unigrams = [unigram_of_run(result, one) for one in setting.results]
    if not unigrams or None in unigrams:
        return False
    return setting.mean("loss", result.part) >= fmean(loss for loss in unigrams if loss is not None)


def unigram_of_run(result: StudyResult, one: TrialResult) -> float | None:
    """Return the unigram model's loss on a run's reported targets; None for a task without one.

    A run counts it beside its own loss, because an axis over data changes the targets. Of a run
    that diverged it is that of the study's n-gram models.
    """
    if one.diverged or "unigram_loss" not in one.task.names:
        return result.baseline("unigram")
    return one.metric("unigram_loss", result.part)


def worse_than_unigram(result: StudyResult, setting: Setting) -> list[float]:
    """Return by how many nats each seed that did so ended above the unigram model's loss.

    Seeds that diverged are not among them.
    """
    found = []
    for one in setting.results:
        loss, unigram = one.metric("loss", result.part), unigram_of_run(result, one)
        if unigram is not None and not one.diverged and loss >= unigram:
            found.append(loss - unigram)
    return found


def rounds_to_target(result: StudyResult, setting: Setting) -> list[tuple[int, float] | None]:
    """Return when each seed's loss first reached the target.

    Only evaluated rounds count, with all evaluated clients.

    Returns:
        The round, and the seconds of training clients until then on one core; None for a seed that
        never reached it.
    """
    target = result.target
    return [None if target is None else _reached(one, target) for one in setting.results]


def _reached(result: TrialResult, target: float) -> tuple[int, float] | None:
    seen = [record for record in result.records if record.heldout]
    place = first_at_most([(r.heldout or {})["loss"] for r in seen], target)
    if place is None:
        return None
    number = seen[place].round
    return number, sum(r.train_seconds for r in result.records if r.round <= number)


def rate_axis(result: StudyResult) -> str | None:
    """Return the tuned learning rate of the area: the client's, if that of the server is too."""
    axes = [name for name in result.study.tune if name.endswith("learning_rate")]
    return min(axes, default=None)


def area_by_rate(result: StudyResult, place: GridPoint) -> dict[int, float]:
    """Return the mean loss over the logarithm of the learning rate, after equal rounds, by seed.

    It is the rate of ``rate_axis``. If other axes are tuned too, a rate's loss is that of their
    best values on validation clients.

    Returns:
        The seeds whose runs all finished; empty unless a learning rate was tuned on a whole grid,
        because each drawn rate has other values of the other axes.
    """
    axis, unigram = rate_axis(result), result.baseline("unigram")
    if axis is None or unigram is None or result.study.draws is not None:
        return {}
    settings = result.of_equal_rounds.settings(place)
    by_rate: dict[float, list[Setting]] = {}
    for setting in settings:
        rate = next(float(point.value) for point in setting.points if point.axis == axis)
        by_rate.setdefault(rate, []).append(setting)
    rates = sorted(by_rate)
    if len(rates) < 2:
        return {}
    whole = set.intersection(*({one.trial.seed for one in s.results} for s in settings))
    return {
        seed: area_over_logarithm(
            rates, [_best_loss(result, by_rate[rate], seed) for rate in rates], unigram
        )
        for seed in sorted(whole)
    }


def _best_loss(result: StudyResult, settings: Sequence[Setting], seed: int) -> float:
    """Return a seed's reported loss at the setting with the best one on validation clients."""
    runs = [one for setting in settings for one in setting.results if one.trial.seed == seed]
    return min(runs, key=lambda one: one.metric("loss", "validation")).metric("loss", result.part)


def _within(result: StudyResult, first: TrialResult, second: TrialResult) -> dict[str, Interval]:
    """Return the differences of one seed with their bootstrap intervals over clients.

    Ratios of sums are resampled all at once, other metrics of a task by computing them anew.
    """
    seed, task = first.trial.seed, result.task
    a, b = first.rows(result.part), second.rows(result.part)
    both = evaluated(a) & evaluated(b)
    found = {}
    for metric in result.metrics:
        columns = task.columns_of(metric)
        if columns is None:
            found[metric] = bootstrap_of_metric(
                lambda rows, name=metric: task.metrics(rows)[name],  # type: ignore[misc]
                a[both],
                b[both],
                seed,
            )
        else:
            top, bottom = columns
            found[metric] = bootstrap_interval(
                a[both, top], b[both, top], a[both, bottom], b[both, bottom], seed
            )
    return found
