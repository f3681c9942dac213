"""Choices among settings of which runs are missing, in sentences."""

from collections.abc import Iterator

from simulations.reports.study_words import enumerate_words, place_words, seeds_text, words
from simulations.studies.results import GridPoint, Ranking, StudyResult


def incomplete_choices(result: StudyResult) -> list[str]:
    """Name settings that were left out of a choice because runs are missing.

    Also names the places whose settings were ranked over fewer seeds than they have.
    """
    left_out, fewer = [], []
    for place, choice, when in _choices(result) if result.chooses else ():
        left_out += [
            f"{place_words(place)} with {words(result.study.part(setting.points, 'tune'))}{when} "
            f"({len(setting.results)} of {seeds_text(len(choice.every))})"
            for setting in choice.left_out
        ]
        if choice.ranked and choice.seeds != choice.every:
            seeds = enumerate_words([str(seed) for seed in sorted(choice.seeds)])
            fewer.append(
                f"No setting of {place_words(place)} with a loss has runs of all seeds{when}: the "
                f"choice is by those of seed {seeds} alone."
            )
    missing = "Left out of the choice because runs are missing:"
    return [*([f"{missing} {enumerate_words(left_out)}."] if left_out else []), *fewer]


def _choices(result: StudyResult) -> Iterator[tuple[GridPoint, Ranking, str]]:
    """Yield the choice at each place, first those of which settings go on, with when they were."""
    study = result.study
    for stage in study.stages()[:-1]:
        early = result.of_stage(stage.rounds)
        if early is None:
            continue
        for place in result.places:
            settings = early.settings(place)
            if stage.rounds != study.first_rounds:  # the others were stopped
                settings = [setting for setting in settings if setting.results]
            yield place, early.choice_among(settings), f" after {stage.rounds} rounds"
    for place in result.places:
        yield place, result.choice(place), ""
