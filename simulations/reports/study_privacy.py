"""Sentences on the privacy of a study: its levels, all its runs together, and the choice of one."""

from collections.abc import Iterator

from server.runs.summary import PrivacySummary
from simulations.reports.study_words import enumerate_words, words
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.selection import StudyPrivacy


def study_privacy_sentences(cost: StudyPrivacy | None) -> Iterator[str]:
    """Yield what the runs of a study cost together, and what a random number of runs would cost.

    Args:
        cost: The cost; None for a study without private runs, on which there is nothing to say.
    """
    if cost is None:
        return
    many = f"The study made {cost.runs:,} runs on the same clients"
    if cost.epsilon is None:
        yield f"{many}, and no bound on the privacy cost of their results holds: {cost.reason}."
        return
    at = f"at delta {cost.delta:.2g} for {cost.adjacency}"
    noisy = cost.runs - cost.without_noise
    if cost.without_noise:
        yield (
            f"{many}, of which {cost.without_noise:,} add no noise: no bound holds for choices "
            f"that look at those. The other {noisy:,} together cost epsilon {cost.epsilon:.4g} "
            f"{at}, by composition{_cohorts(cost)}."
        )
        return
    yield (
        f"{many}. Whatever is published of them, all models or only the best settings, costs at "
        f"most epsilon {cost.epsilon:.4g} {at}: by composition, because their number was "
        f"fixed{_cohorts(cost)}. Held-out clients, by whose losses settings are chosen, are not "
        "protected."
    )
    yield _random(cost)


def _cohorts(cost: StudyPrivacy) -> str:
    if not cost.shared_cohorts:
        return ""
    return ", as one release for the runs of a seed, which have the same cohorts"


def _random(cost: StudyPrivacy) -> str:
    what = "The bounds for a random number of runs (arXiv 2110.03620) do not hold for a fixed one"
    if cost.random is None:
        return f"{what}."
    found = cost.random
    if cost.epsilon is not None and found.epsilon >= cost.epsilon:
        return f"{what}, and would not be smaller here ({found.epsilon:.4g})."
    return (
        f"{what}; with a secret number of runs from the {found.law} distribution of mean "
        f"{found.mean:.0f}, each with cohorts of its own, and nothing but the best run published, "
        f"epsilon would be {found.epsilon:.4g}."
    )


def claims(result: StudyResult) -> Iterator[str]:
    """Yield what epsilon covers at the levels of a study; nothing for a study without levels."""
    reported = reported_privacy(result)
    if not reported or not result.privacy_levels:
        return
    by_sentence = _claims_by_sentence(reported)
    for sentence, names in by_sentence.items():
        yield sentence if len(by_sentence) == 1 else f"{enumerate_words(names)}: {sentence}"
    if len({privacy.adjacency for privacy in reported.values()}) > 1:
        yield (
            "These are different guarantees: an epsilon for one adjacency is not comparable with "
            "an epsilon for another."
        )
    privacy = next(iter(reported.values()))
    if privacy.extrapolated:
        yield (
            f"This is an extrapolation: cohorts of {privacy.simulated_cohort_size:,} from "
            f"{result.summary.training_clients:,} clients were simulated and stand for cohorts "
            f"of {privacy.cohort_size:,} from {privacy.population:,}, with the noise on the "
            "mean that those would have. Epsilon applies to those and is not claimed for the "
            "simulated clients."
        )


def reported_privacy(result: StudyResult) -> dict[GridPoint, PrivacySummary]:
    """Return the privacy of the setting that each arm is reported with at each level."""
    found = {}
    for place in result.places:
        private = [one.summary.privacy for one in result.all_seeds(place) if one.summary.privacy]
        if private:
            found[place] = private[0]
    return found


def _claims_by_sentence(reported: dict[GridPoint, PrivacySummary]) -> dict[str, list[str]]:
    """Return what epsilon covers, and of which that is true: arms, or arms at some levels."""
    found: dict[str, list[GridPoint]] = {}
    for place, claim in reported.items():
        sentence = (
            f"Epsilon covers all rounds at delta {claim.delta:.2g} for {claim.adjacency} "
            f"(accountant: {claim.accountant}), with the {claim.mechanism} mechanism and "
            f"{claim.sampling} sampling of {claim.cohort_size:,} from {claim.population:,} "
            "clients."
        )
        found.setdefault(sentence, []).append(place)
    of_arms = [{place.arm for place in places} for places in found.values()]
    by_arm = sum(map(len, of_arms)) == len({place.arm for place in reported})
    return {
        sentence: list(dict.fromkeys(_named(place, by_arm=by_arm) for place in places))
        for sentence, places in found.items()
    }


def _named(place: GridPoint, *, by_arm: bool) -> str:
    if by_arm:
        return words(place.arm)
    return f"{words(place.arm)} at {words(place.level)}" if place.arm else words(place.level)
