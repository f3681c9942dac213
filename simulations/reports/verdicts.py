"""Findings of a study in sentences, each based on an interval or a count that it states."""

from collections.abc import Iterator, Sequence

from simulations.reports.study_privacy import study_privacy_sentences
from simulations.reports.study_words import (
    enumerate_words,
    interval_text,
    loss_text,
    mean_text,
    words,
)
from simulations.studies.gaps import (
    Gap,
    Verdict,
    area_by_rate,
    gap,
    gap_between,
    is_useless,
    pairs,
    rounds_to_target,
    tolerance_axis,
    worse_than_unigram,
)
from simulations.studies.results import GridPoint, Setting, StudyResult
from simulations.studies.statistics import FEWEST_SEEDS, Interval, t_interval

_MOST_WITHOUT_CLAIM = 3
"""Comparisons for which the top of a page says one by one that too few seeds allow no claim."""


def verdicts(result: StudyResult, *, brief: bool = False) -> list[str]:
    """Return the main conclusions: comparisons, data and certainty.

    Args:
        result: The study's result.
        brief: Leaves out the intervals over clients and the metrics that do not decide, and sums
            up differences about which too few seeds allow no claim.
    """
    return [
        *_comparisons(result, brief=brief),
        *_best_of_many(result, brief=brief),
        _design(result),
    ]


def headlines(result: StudyResult) -> list[str]:
    """Return the main conclusions in brief for the top of a page."""
    return [
        *_comparisons(result, brief=True),
        *_best(result),
        *_best_of_many(result, brief=True),
        *_no_better_than_counting(result),
        _design(result),
    ]


def findings(result: StudyResult, *, brief: bool = False) -> list[str]:
    """Return all findings of a study in sentences, verdicts first; ``brief`` as in those."""
    return [
        *verdicts(result, brief=brief),
        *_claim(result),
        *study_privacy_sentences(result.privacy),
        *(_place(result, place) for place in result.places),
        *_no_better_than_counting(result),
        *_targets(result),
        *_areas(result),
        _caveat(result),
    ]


def too_many_without_claim(result: StudyResult) -> bool:
    """Whether there are too many differences to say of each that too few seeds allow no claim."""
    return result.seeds < FEWEST_SEEDS and len(pairs(result)) > _MOST_WITHOUT_CLAIM


def _comparisons(result: StudyResult, *, brief: bool) -> list[str]:
    if brief and too_many_without_claim(result):
        return [
            f"No claim about any of the {len(pairs(result))} differences: "
            f"{_seeds(result.seeds)}, and at least {FEWEST_SEEDS} are needed."
        ]
    return [_verdict(result, first, second, brief=brief) for first, second in pairs(result)]


def verdict_sentence(first: str, second: str, found: Gap, metrics: dict[str, str]) -> str:
    """Return the sentence on the comparison of two settings.

    Args:
        first: Name of the first setting.
        second: Name of the second setting.
        found: Their differences, first minus second.
        metrics: Names of the metrics besides the loss.
    """
    match found.verdict:
        case Verdict.NOT_MEASURED:
            return f"{first} and {second} cannot be compared: at least one of them has no loss."
        case Verdict.USELESS:
            return (
                f"No ranking of {first} and {second}: at least one of them is not better than the "
                f"unigram model ({_numbers(found, metrics)})."
            )
        case Verdict.FEW_SEEDS:
            seeds = len(found.over_clients)
            return (
                f"No claim about {first} and {second}: {_seeds(seeds)}, "
                f"and at least {FEWEST_SEEDS} are needed. {first} minus {second}: "
                f"{_numbers(found, metrics)}{_within(found)}."
            )
        case Verdict.NONE_SHOWN:
            return (
                f"No difference shown between {first} and {second}: {_numbers(found, metrics)} "
                f"({_method(found)}{_within(found)})."
            )
        case Verdict.LOWER | Verdict.HIGHER:
            named = found.deciding.replace("_", " ")
            return (
                f"{first} has a {found.verdict.value} {named} than {second}: "
                f"{_numbers(found, metrics)} ({_method(found)}{_within(found)})."
            )


def _verdict(
    result: StudyResult, first: GridPoint, second: GridPoint, *, brief: bool = False
) -> str:
    found, shares = _told(result, gap_between(result, first, second), brief=brief)
    if first.level == second.level:
        at = f"At {words(first.level)}: " if first.level else ""
        sentence = verdict_sentence(words(first.arm), words(second.arm), found, shares)
        return at + sentence.replace("No ", "no ", 1) if at else _capitalised(sentence)
    of = f"{words(first.arm)} " if first.arm else ""
    one, other = f"{of}at {words(first.level)}", f"{of}at {words(second.level)}"
    return _capitalised(verdict_sentence(one, other, found, shares))


def _told(result: StudyResult, found: Gap, *, brief: bool) -> tuple[Gap, dict[str, str]]:
    """Return what is told of a gap, and the names of the metrics besides the loss.

    In brief these are the deciding metric alone, without intervals over clients.
    """
    if not brief:
        return found, dict(result.task.curves)
    shares = {name: called for name, called in result.task.curves.items() if name == found.deciding}
    return found.without_clients(), shares


def _numbers(found: Gap, metrics: dict[str, str]) -> str:
    """Describe the differences over seeds, that of the deciding metric first."""
    parts = {"loss": f"{interval_text(found.over_seeds['loss'])} nats"} | {
        name: f"{called} {interval_text(found.over_seeds[name])}"
        for name, called in metrics.items()
        if name in found.over_seeds
    }
    first = {name: parts[name] for name in [found.deciding] if name in parts}
    return ", ".join((first | parts).values())


def _method(found: Gap) -> str:
    return f"95 % intervals, t over {len(found.over_clients)} seeds"


def _within(found: Gap) -> str:
    """Describe the bootstrap intervals over clients of the deciding metric within each seed."""
    deciding = found.deciding
    within = {s: one[deciding] for s, one in found.over_clients.items() if deciding in one}
    if not within:
        return ""
    named = [f"{interval_text(one)} in seed {seed}" for seed, one in within.items()]
    return f"; paired bootstrap over clients: {enumerate_words(named)}"


def _best(result: StudyResult) -> list[str]:
    """Name the chosen setting and its loss, if only tuned settings are varied."""
    chosen = result.chosen(result.places[0])
    if not result.chooses or len(result.places) > 1 or chosen is None:
        return []
    loss = loss_text(chosen, result.part)
    return [f"Best on validation clients: {words(chosen.points)}, whose held-out loss is {loss}."]


def _best_of_many(result: StudyResult, *, brief: bool = False) -> list[str]:
    """Compare the best setting with the second, if only tuned settings are varied."""
    if not result.chooses or len(result.places) > 1:
        return []
    place = result.places[0]
    chosen = result.chosen(place)
    others = [
        s
        for s in result.settings(place)
        if s.measured and s is not chosen and result.ran_to_the_end(s)
        and chosen is not None and s.points != chosen.points
    ]  # fmt: skip
    if chosen is None or not others:
        return []
    second = min(others, key=result.cost)
    found, shares = _told(result, gap(result, chosen, second), brief=brief)
    names = words(chosen.points), words(second.points)
    return [_capitalised(verdict_sentence(*names, found, shares))]


def _design(result: StudyResult) -> str:
    summary = result.summary
    lines = [
        f"{name} {result.baseline(name):.3f}"
        for name in (result.baselines.names if result.baselines is not None else ())
        if result.baseline(name) is not None
    ]
    counting = (
        f"; on the same targets n-gram models have: {enumerate_words(lines)}" if lines else ""
    )
    return (
        f"Corpus {summary.corpus} (SHA-256 {summary.corpus_sha256[:16]}): "
        f"{summary.training_clients:,} training clients, {summary.heldout_clients:,} held out. "
        f"Results are over {_clients(result)}{counting}."
    )


def _clients(result: StudyResult) -> str:
    measured = next((r.measured for r in result.results if r.measured), None)
    if measured is None:
        return "no client, because every run diverged"
    test = int(measured.test.sum())
    if result.part == "all":
        return f"all {len(measured.test)} evaluated clients, because nothing was chosen"
    return (
        f"{test} test clients; the best settings were chosen on {len(measured.test) - test} others"
    )


def _claim(result: StudyResult) -> Iterator[str]:
    privacy = result.summary.privacy
    if not privacy or not result.privacy_levels:
        return
    claims = _claims_of_arms(result)
    for sentence, arms in claims.items():
        yield sentence if len(claims) == 1 else f"{enumerate_words(arms)}: {sentence}"
    if len({one.summary.privacy.adjacency for one in result.results if one.summary.privacy}) > 1:
        yield (
            "These are different guarantees: an epsilon for one adjacency is not comparable with "
            "an epsilon for another."
        )
    if privacy.extrapolated:
        yield (
            f"This is an extrapolation: cohorts of {privacy.simulated_cohort_size:,} from "
            f"{result.summary.training_clients:,} clients were simulated and stand for cohorts "
            f"of {privacy.cohort_size:,} from {privacy.population:,}, with the noise on the "
            "mean that those would have. Epsilon applies to those and is not claimed for the "
            "simulated clients."
        )


def _claims_of_arms(result: StudyResult) -> dict[str, list[str]]:
    """Return what epsilon covers, and the arms of which that is true."""
    claims: dict[str, list[str]] = {}
    for arm in result.arms:
        claim = next(
            (
                one.summary.privacy
                for one in result.results
                if one.summary.privacy and result.study.part(one.trial.points, "compare") == arm
            ),
            None,
        )
        if claim is not None:
            sentence = (
                f"Epsilon covers all rounds at delta {claim.delta:.2g} for {claim.adjacency} "
                f"(accountant: {claim.accountant}), with the {claim.mechanism} mechanism and "
                f"{claim.sampling} sampling of {claim.cohort_size:,} from {claim.population:,} "
                "clients."
            )
            claims.setdefault(sentence, []).append(words(arm))
    return claims


def place_words(place: GridPoint) -> str:
    """Return the name of an arm at a level."""
    at = f" at {words(place.level)}" if place.level else ""
    return f"{words(place.arm)}{at}"


def _place(result: StudyResult, place: GridPoint) -> str:
    """Describe the result of an arm at a level."""
    settings = result.settings(place)
    chosen = result.chosen(place)
    name = place_words(place)
    name = name[:1].upper() + name[1:]
    if chosen is None:
        if all(setting.diverged for setting in settings):
            return f"{name}: every run diverged."
        return f"{name} has no loss: no run finished without diverging."
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


def _above_unigram(result: StudyResult, settings: Sequence[Setting]) -> str:
    """Describe the settings that ended above the unigram model's loss without diverging."""
    found = {setting.points: worse_than_unigram(result, setting) for setting in settings}
    told = [
        f"{words(result.study.part(s.points, 'tune')) if result.chooses else 'it'} "
        f"({len(found[s.points])} of {len(s.results)} seeds, by up to "
        f"{max(found[s.points]):.3f} nats)"
        for s in settings
        if found[s.points]
    ]
    return f"; worse than the unigram model: {enumerate_words(told)}" if told else ""


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
            told.append(f"{place_words(place)} {target_text(result, chosen)}")
    what = "the bigram model's" if result.study.target is None else "the target"
    return [f"Rounds to a loss of {target:.3f} ({what}): {'; '.join(told)}."] if told else []


def target_text(result: StudyResult, setting: Setting) -> str:
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


def _areas(result: StudyResult) -> list[str]:
    """Describe each arm's tolerance of the learning rate, and compare the arms with the first."""
    areas = {place: area_by_rate(result, place) for place in result.places}
    told = [f"{place_words(place)} {mean_text(found)}" for place, found in areas.items() if found]
    if not told:
        return []
    axis = tolerance_axis(result)
    several = sum(name.endswith("learning_rate") for name in result.study.tune) > 1
    rate = f"{axis}, at the best of the other rate" if several else "the learning rate"
    early = result.of_equal_rounds is not result
    when = f"After {result.study.first_rounds} rounds, mean loss" if early else "Mean loss"
    sentences = [
        f"{when} over the logarithm of {rate}, where a run that diverged or is worse "
        f"than the unigram model counts as the unigram model: {'; '.join(told)}."
    ]
    for first, second in pairs(result):
        one, other = areas[first], areas[second]
        if first.level == second.level and len(one) == len(other) >= FEWEST_SEEDS:
            between = t_interval([a - b for a, b in zip(one, other, strict=True)])
            names = place_words(first), place_words(second)
            sentences.append(_area_verdict(*names, between, len(one)))
    return sentences


def _area_verdict(first: str, second: str, between: Interval, seeds: int) -> str:
    numbers = f"{interval_text(between)} nats (95 %, t over {seeds} seeds)"
    if between.holds_zero:
        return f"No difference in tolerance shown between {first} and {second}: {numbers}."
    more = "more" if between.estimate < 0 else "less"
    return f"{first} is {more} tolerant of the learning rate than {second}: {numbers}."


def _caveat(result: StudyResult) -> str:
    told = len(pairs(result))
    many = (
        f" {told} differences were tested, and intervals are not corrected for that."
        if told > 1
        else ""
    )
    untuned = "" if result.chooses else "Nothing was tuned: each may have a better learning rate. "
    if result.seeds < FEWEST_SEEDS:
        return f"{untuned}{_seeds(result.seeds)}: another may change gaps, even their sign.{many}"
    return f"{untuned}± is half of the 95 % interval over {result.seeds} seeds.{many}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
