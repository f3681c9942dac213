"""Mean losses over a tuned learning rate, compared between arms, in sentences."""

from collections.abc import Sequence

from simulations.reports.study_words import (
    capitalised,
    interval_text,
    mean_text,
    place_words,
    seeds_text,
)
from simulations.studies.gaps import area_by_rate, pairs, rate_axis
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.statistics import FEWEST_SEEDS, t_interval


def losses_over_rates(result: StudyResult) -> list[str]:
    """Describe each arm's mean loss over the learning rate, and compare the arms with the first."""
    areas = {place: [*area_by_rate(result, place).values()] for place in result.places}
    told = [f"{place_words(place)} {mean_text(found)}" for place, found in areas.items() if found]
    if not told:
        return []
    axis = rate_axis(result)
    several = sum(name.endswith("learning_rate") for name in result.study.tune) > 1
    rate = f"{axis}, at the best of the other rate" if several else "the learning rate"
    early = result.of_equal_rounds is not result
    when = f"After {result.study.first_rounds} rounds, mean loss" if early else "Mean loss"
    return [
        f"{when} over the logarithm of {rate}, where a run that diverged or is worse "
        f"than the unigram model counts as the unigram model: {'; '.join(told)}.",
        *(
            capitalised(_verdict(place_words(one), place_words(other), gaps), one.arm)
            for (one, other), gaps in area_gaps(result).items()
        ),
    ]


def area_gaps(result: StudyResult) -> dict[tuple[GridPoint, GridPoint], list[float]]:
    """Return the differences of the arms' mean losses over rates, of each seed that both have.

    Empty if none has been computed, or too few seeds were run for any claim.
    """
    areas = {place: area_by_rate(result, place) for place in result.places}
    if not any(areas.values()) or result.of_equal_rounds.seeds < FEWEST_SEEDS:
        return {}
    return {
        (one, other): [areas[one][seed] - areas[other][seed] for seed in areas[one]
                       if seed in areas[other]]
        for one, other in pairs(result)
        if one.level == other.level
    }  # fmt: skip


def _verdict(first: str, second: str, gaps: Sequence[float]) -> str:
    if len(gaps) < FEWEST_SEEDS:
        return (
            f"No claim about the mean loss over rates of {first} and {second}: "
            f"{seeds_text(len(gaps))} with all runs, and at least {FEWEST_SEEDS} are needed."
        )
    between = t_interval(gaps)
    numbers = f"{interval_text(between)} nats (95 %, t over {len(gaps)} seeds)"
    if between.holds_zero:
        return (
            f"No difference in mean loss over rates shown between {first} and {second}: {numbers}."
        )
    lower = "lower" if between.estimate < 0 else "higher"
    return f"{first} has a {lower} mean loss over rates than {second}: {numbers}."
