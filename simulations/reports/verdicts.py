"""Comparisons of a study in sentences, each based on the interval that it states."""

from simulations.reports.study_words import (
    capitalised,
    enumerate_words,
    interval_text,
    seeds_text,
    words,
)
from simulations.studies.gaps import Gap, Verdict, gap, gap_between, pairs
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.statistics import FEWEST_SEEDS

_MOST_WITHOUT_CLAIM = 3
"""Comparisons for which the top of a page says one by one that too few seeds allow no claim."""


def too_many_without_claim(result: StudyResult) -> bool:
    """Whether there are too many differences to say of each that too few seeds allow no claim."""
    return result.seeds < FEWEST_SEEDS and len(pairs(result)) > _MOST_WITHOUT_CLAIM


def no_claim_about(differences: int, result: StudyResult) -> str:
    """Return the sentence on differences about none of which the seeds allow a claim."""
    return (
        f"No claim about any of the {differences} differences: {seeds_text(result.seeds)}, and at "
        f"least {FEWEST_SEEDS} are needed."
    )


def comparisons(result: StudyResult, *, brief: bool) -> list[str]:
    """Compare the arms and the levels with their first.

    Args:
        result: The study's result.
        brief: Leaves out the intervals over clients and the metrics that do not decide, and sums
            up differences about which too few seeds allow no claim.
    """
    if brief and too_many_without_claim(result):
        return [no_claim_about(len(pairs(result)), result)]
    return [_verdict(result, first, second, brief=brief) for first, second in pairs(result)]


def verdict_sentence(first: str, second: str, found: Gap, metrics: dict[str, str]) -> str:
    """Return the sentence on the comparison of two settings.

    Args:
        first: Name of the first setting.
        second: Name of the second setting.
        found: Their differences, first minus second.
        metrics: Names of the metrics besides the loss.
    """
    named = found.deciding.replace("_", " ")
    match found.verdict:
        case Verdict.NOT_MEASURED if found.over_seeds:
            return f"{first} and {second} cannot be compared: a run of one of them has no {named}."
        case Verdict.NOT_MEASURED:
            return f"{first} and {second} cannot be compared: no seed has a finished run of both."
        case Verdict.USELESS:
            return (
                f"No ranking of {first} and {second}: at least one of them is not better than the "
                f"unigram model ({_numbers(found, metrics)})."
            )
        case Verdict.FEW_SEEDS | Verdict.ONE_RUN:
            few = f"{seeds_text(len(found.over_clients))}, and at least {FEWEST_SEEDS} are needed"
            same = "seeds of one of them ended with the same model, so they are one run"
            return (
                f"No claim about {first} and {second}: "
                f"{few if found.verdict is Verdict.FEW_SEEDS else same}. {first} minus {second}: "
                f"{_numbers(found, metrics)}{_within(found)}."
            )
        case Verdict.NONE_SHOWN:
            return (
                f"No difference shown between {first} and {second}: {_numbers(found, metrics)} "
                f"({_method(found)}{_within(found)})."
            )
        case Verdict.LOWER | Verdict.HIGHER:
            return (
                f"{first} has a {found.verdict.value} {named} than {second}: "
                f"{_numbers(found, metrics)} ({_method(found)}{_within(found)})."
            )


def no_loss(first: str, second: str) -> str:
    """Return the sentence on two settings of which one has no loss, or none of all its seeds."""
    return f"{first} and {second} cannot be compared: at least one has no loss to compare."


def _verdict(
    result: StudyResult, first: GridPoint, second: GridPoint, *, brief: bool = False
) -> str:
    found, shares = _told(result, gap_between(result, first, second), brief=brief)
    if first.level == second.level:
        one, other = words(first.arm), words(second.arm)
    else:
        of = f"{words(first.arm)} " if first.arm else ""
        one, other = f"{of}at {words(first.level)}", f"{of}at {words(second.level)}"
    if any(result.chosen(place) is None for place in (first, second)):
        sentence = no_loss(one, other)
    else:
        sentence = verdict_sentence(one, other, found, shares)
    if first.level and first.level == second.level:
        return f"At {words(first.level)}: " + sentence.replace("No ", "no ", 1)
    return capitalised(sentence, first.arm)


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
    apart = "" if found.same_targets else ", each evaluated on other clients or words"
    return f"95 % intervals, t over {len(found.over_clients)} seeds{apart}"


def _within(found: Gap) -> str:
    """Describe the bootstrap intervals over clients of the deciding metric within each seed."""
    deciding = found.deciding
    within = {s: one[deciding] for s, one in found.over_clients.items() if deciding in one}
    if not within:
        return ""
    named = [f"{interval_text(one)} in seed {seed}" for seed, one in within.items()]
    return f"; paired bootstrap over clients: {enumerate_words(named)}"


def best_of_many(result: StudyResult, *, brief: bool) -> list[str]:
    """Compare the best setting with the second, if only tuned settings are varied."""
    if not result.chooses or len(result.places) > 1:
        return []
    ranked = result.choice(result.places[0]).ranked
    if len(ranked) < 2:
        return []
    chosen, second = ranked[:2]
    found, shares = _told(result, gap(result, chosen, second), brief=brief)
    names = words(chosen.points), words(second.points)
    return [capitalised(verdict_sentence(*names, found, shares), chosen.points)]
