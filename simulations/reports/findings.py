"""Findings of a study in sentences, each based on an interval or a count that it states."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from server.endings import ROUNDS
from simulations.reports.incomplete_choices import incomplete_choices
from simulations.reports.lengths import length_pairs
from simulations.reports.losses_over_rates import area_gaps, losses_over_rates
from simulations.reports.study_privacy import claims, study_privacy_sentences
from simulations.reports.study_words import (
    axis_words,
    capitalised,
    enumerate_words,
    loss_text,
    place_words,
    seeds_text,
    words,
)
from simulations.reports.verdicts import best_of_many, comparisons
from simulations.studies.gaps import (
    area_by_rate,
    holm_p_values,
    is_useless,
    pairs,
    rounds_to_target,
    worse_than_unigram,
)
from simulations.studies.results import GridPoint, Setting, StudyResult
from simulations.studies.statistics import FEWEST_SEEDS, LEVEL

FEWEST_VALUES = 3
"""Values of a tuned key from which its edges are told; two are both edges."""


def headlines(result: StudyResult) -> list[str]:
    """Return the main conclusions in brief for the top of a page."""
    return [
        *comparisons(result, brief=True),
        *_best(result),
        *best_of_many(result, brief=True),
        *_no_better_than_counting(result),
        _design(result),
    ]


def findings(result: StudyResult, *, brief: bool = False) -> list[str]:
    """Return all findings of a study in sentences, comparisons first; ``brief`` as in those."""
    return [
        *comparisons(result, brief=brief),
        *best_of_many(result, brief=brief),
        _design(result),
        *claims(result),
        *study_privacy_sentences(result.privacy),
        *(_place(result, place) for place in result.places),
        *incomplete_choices(result),
        *_at_the_edge(result),
        *_stopped_early(result),
        *_ended_early(result),
        *_no_better_than_counting(result),
        *_targets(result),
        *losses_over_rates(result),
        _caveat(result),
    ]


def _design(result: StudyResult) -> str:
    lines = [
        f"{name} {result.baseline(name):.3f}"
        for name in (result.baselines.names if result.baselines is not None else ())
        if result.baseline(name) is not None
    ]
    populations = dict.fromkeys(
        f"Corpus {one.summary.corpus} (SHA-256 {one.summary.corpus_sha256[:16]}): "
        f"{one.summary.training_clients:,} training clients, "
        f"{one.summary.heldout_clients:,} held out."
        for one in result.results
    )
    targets = "the same targets" if len(populations) == 1 else "targets of the experiment itself"
    counting = f"; on {targets} n-gram models have: {enumerate_words(lines)}" if lines else ""
    return f"{' '.join(populations)} Results are over {_clients(result)}{counting}."


def _clients(result: StudyResult) -> str:
    tests = [one.measured.test for one in result.results if one.measured]
    if not tests:
        return "no client, because every run diverged"
    if result.part == "all":
        return f"all {_counts(map(len, tests))} evaluated clients, because nothing was chosen"
    others = _counts(int((~test).sum()) for test in tests)
    return (
        f"{_counts(int(test.sum()) for test in tests)} test clients; the best settings were chosen "
        f"on {others} others"
    )


def _counts(found: Iterable[int]) -> str:
    """Return a count in words; an axis over data makes it differ between runs."""
    counts = sorted(set(found))
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _place(result: StudyResult, place: GridPoint) -> str:
    """Describe the result of an arm at a level."""
    settings = result.settings(place)
    chosen = result.chosen(place)
    name = capitalised(place_words(place), place.arm)
    if chosen is None:
        return f"{name}{_why_none(result, settings)}."
    tuned = result.study.part(chosen.points, "tune") if result.chooses else ()
    at = f" with {words(tuned)}" if tuned else ""
    unstable = [
        f"{words(result.study.part(s.points, 'tune'))} ({s.diverged} of {len(s.results)} seeds)"
        for s in settings
        if s.diverged
    ]
    spoiled = f"; diverged: {enumerate_words(unstable)}" if unstable else ""
    spoiled += _above_unigram(result, settings)
    return f"{name}{at}: held-out loss {loss_text(chosen, result.part)}{spoiled}."


def _why_none(result: StudyResult, settings: Sequence[Setting]) -> str:
    """Say why none of a place's settings was chosen, after its name."""
    ended = [setting for setting in settings if setting.results]
    whole = [setting for setting in ended if result.ran_to_the_end(setting)]
    ran = whole or ended
    runs, diverged = sum(len(s.results) for s in ran), sum(s.diverged for s in ran)
    if not ran:
        return " has no finished run"
    if diverged == runs:
        return ": every run diverged"
    if not any(setting.measured for setting in ran):
        each = ", at least one with each setting" if len(ran) > 1 else ""
        return f" has no loss: {diverged} of {runs} runs diverged{each}"
    if whole:
        return " has no best setting: those with a loss have no seed in common"
    return " has no loss yet: no run of all rounds has finished"


def _at_the_edge(result: StudyResult) -> list[str]:
    """Name the arms whose chosen value is the smallest or largest one that was tried."""
    if not result.chooses:
        return []
    found: dict[tuple[str, str], list[str]] = {}
    for place in result.places:
        chosen = result.chosen(place)
        run = [setting for setting in result.settings(place) if setting.results]
        for point in result.study.part(chosen.points, "tune") if chosen else ():
            tried = set(_values_of(run, point.axis))
            numbers = all(type(value) in (int, float) for value in tried)
            if not numbers or len(tried) < FEWEST_VALUES:
                continue
            for word, edge in (("smaller", min(tried)), ("larger", max(tried))):
                if point.value == edge:
                    found.setdefault((axis_words(point.axis), word), []).append(place_words(place))
    return [
        f"A {word} {axis} than any that was tried may be better for {enumerate_words(names)}."
        for (axis, word), names in found.items()
    ]


def _stopped_early(result: StudyResult) -> list[str]:
    """Name the arms for which no smaller rate than the chosen one was kept by ``halving``.

    Short runs favour large learning rates, and so do the stages in which settings are stopped.
    """
    if result.study.design != "halving":
        return []
    found: dict[str, list[str]] = {}
    for place in result.places:
        chosen = result.chosen(place)
        for point in result.study.part(chosen.points, "tune") if chosen else ():
            if not point.axis.endswith("learning_rate"):
                continue
            tried = _values_of(result.settings(place), point.axis)
            whole = [
                one for one in result.settings(place) if one.results and result.ran_to_the_end(one)
            ]
            if min(tried) < point.value == min(_values_of(whole, point.axis)):
                found.setdefault(axis_words(point.axis), []).append(place_words(place))
    return [
        f"No smaller {axis} than the best one ran for all rounds for {enumerate_words(names)}. "
        "Short runs favour large rates, so a smaller one may be better."
        for axis, names in found.items()
    ]


def _ended_early(result: StudyResult) -> list[str]:
    """Name the compared runs that ended before the last of their rounds, without diverging.

    A limit of time or bytes ends one arm after more rounds than another, and a target as well.
    """
    found: dict[str, list[str]] = {}
    for place in result.places:
        chosen = result.chosen(place)
        for one in chosen.results if chosen else ():
            if one.summary.ended_by != ROUNDS:
                done = f"{one.summary.rounds:,} of {one.trial.experiment.server.rounds:,}"
                told = f"{done} in seed {one.trial.seed} ({one.summary.ended_by})"
                found.setdefault(place_words(place), []).append(told)
    if not found:
        return []
    told = "; ".join(f"{name} {enumerate_words(runs)}" for name, runs in found.items())
    return [f"Runs that ended before their last round: {told}."]


def _values_of(settings: Sequence[Setting], axis: str) -> list[Any]:
    return [point.value for setting in settings for point in setting.points if point.axis == axis]


def _above_unigram(result: StudyResult, settings: Sequence[Setting]) -> str:
    """Describe the settings that ended above the unigram model's loss without diverging."""
    found = {setting.points: worse_than_unigram(result, setting) for setting in settings}
    told = [
        f"{words(result.study.part(s.points, 'tune')) + ' ' if result.chooses else ''}"
        f"({len(found[s.points])} of {len(s.results)} seeds, by up to "
        f"{max(found[s.points]):.3f} nats)"
        for s in settings
        if found[s.points]
    ]
    colon = ":" if result.chooses else ""
    return f"; worse than the unigram model{colon} {enumerate_words(told)}" if told else ""


def _no_better_than_counting(result: StudyResult) -> list[str]:
    chosen = {place_words(place): result.chosen(place) for place in result.places}
    useless = [n for n, setting in chosen.items() if setting and is_useless(result, setting)]
    found = []
    if useless:
        found.append(
            f"Not better than the unigram model, so not useful: {enumerate_words(useless)}."
        )
    bigram = result.baseline("bigram")
    weak = [
        name
        for name, setting in chosen.items()
        if setting and bigram is not None and setting.mean("loss", result.part) >= bigram
    ]
    if weak and len(weak) > len(useless):
        found.append(f"Not better than the bigram model: {enumerate_words(weak)}.")
    return found


def _targets(result: StudyResult) -> list[str]:
    target = result.target
    if target is None:
        return []
    told = []
    for place in result.places:
        chosen = result.chosen(place)
        if chosen is not None:
            told.append(f"{place_words(place)} {_target_text(result, chosen)}")
    what = "the bigram model's" if result.study.target is None else "the target"
    return [f"Rounds to a loss of {target:.3f} ({what}): {'; '.join(told)}."] if told else []


def _target_text(result: StudyResult, setting: Setting) -> str:
    """Return the rounds and client seconds to the target, over the seeds that reached it."""
    reached = rounds_to_target(result, setting)
    hits = [one for one in reached if one is not None]
    if not hits:
        return "never"
    rounds = sum(number for number, _ in hits) / len(hits)
    seconds = sum(taken for _, taken in hits) / len(hits)
    missed = len(reached) - len(hits)
    some = f", {missed} of {len(reached)} seeds never" if missed else ""
    return f"{rounds:.0f} ({seconds:.0f} client seconds{some})"


def _caveat(result: StudyResult) -> str:
    apart = _not_corrected(result)
    told = len(pairs(result)) + sum(apart.values())
    many = (
        f" {told} differences were tested, and intervals are not corrected for that."
        if told > 1
        else ""
    )
    untuned = "" if result.chooses else "Nothing was tuned: each may have a better learning rate. "
    if result.seeds < FEWEST_SEEDS:
        return (
            f"{untuned}{seeds_text(result.seeds)}: another may change gaps, even their sign.{many}"
        )
    counts = {len(s.results) for place in result.places for s in result.settings(place)}
    counts |= {len(area_by_rate(result, place)) for place in result.places}
    several = sorted(count for count in counts if count >= FEWEST_SEEDS)
    over = f"{several[-1]} seeds" if len(several) == 1 else "the seeds that each number is of"
    half = f"± is half of the 95 % interval over {over}."
    left = _left(holm_p_values(result))
    if left and apart:
        left += f" Those {enumerate_words([*apart])} are not in that correction."
    return f"{untuned}{half}{many}{left}"


def _not_corrected(result: StudyResult) -> dict[str, int]:
    """Return how many differences are not among those of Holm's correction, by what they are."""
    at_a_length, over_rates = len(length_pairs(result)), len(area_gaps(result))
    longest = max(result.study.lengths, default=0)
    found = {f"at {longest}": at_a_length, "over rates": over_rates}
    return {where: count for where, count in found.items() if count}


def _left(corrected: Mapping[tuple[GridPoint, GridPoint], float]) -> str:
    """Name the differences that are shown after a correction for their number."""
    if len(corrected) < 2:
        return ""
    left = [
        f"{place_words(first)} minus {place_words(second)}"
        for (first, second), p in corrected.items()
        if p < 1 - LEVEL
    ]
    shown = f"those still shown are: {'; '.join(left)}" if left else "none is shown"
    return f" After Holm's correction for {len(corrected)} of them, {shown}."


def _best(result: StudyResult) -> list[str]:
    """Name the chosen setting and its loss, if only tuned settings are varied."""
    chosen = result.chosen(result.places[0])
    if not result.chooses or len(result.places) > 1 or chosen is None:
        return []
    loss = loss_text(chosen, result.part)
    return [f"Best on validation clients: {words(chosen.points)}, whose held-out loss is {loss}."]
