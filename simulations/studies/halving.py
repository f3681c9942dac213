"""Successive halving: the combinations that go on, and each combination's last results.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization"
(arXiv 1502.07943). Combinations are only held against others of the same arm and level, because
with few rounds one arm may lead that is behind in the end.
"""

from collections.abc import Iterable, Sequence

from simulations.studies.results import StudyResult, TrialResult
from simulations.studies.study import Combination, Study, Trial

Seeded = tuple[Combination, int]
"""A combination and a seed."""


def seeded(trial: Trial) -> Seeded:
    """Return a trial's combination and seed."""
    return trial.points, trial.seed


def best_combinations(
    result: StudyResult, kept: Sequence[Combination], most: int
) -> list[Combination]:
    """Return the combinations that go on: the best on validation clients, over equal seeds.

    Args:
        result: The results so far.
        kept: The combinations run so far.
        most: How many go on at each level for each arm, if so many can be ranked.
    """
    best: list[Combination] = []
    for place in result.places:
        settings = [s for s in result.settings(place) if s.points in kept]
        best += [setting.points for setting in result.choice_among(settings).ranked[:most]]
    return [points for points in kept if points in best]


def asked_trials(study: Study, stages: Sequence[Sequence[TrialResult]]) -> list[Trial]:
    """Return the trials of a study by halving that must have a run, as far as its runs tell.

    A combination with a result in a stage needs all seeds of that stage. All combinations need the
    first stage, and those that go on the next one; which ones do is known if no run is missing.

    Args:
        study: The study.
        stages: The results of each stage, in order.
    """
    asked: list[Trial] = []
    combinations = kept = study.combinations()
    planned = study.stages()
    for number, (stage, results) in enumerate(zip(planned, stages, strict=True), 1):
        ran = {one.trial.points for one in results}
        needed = [points for points in combinations if points in ran or points in kept]
        trials = [study.trial(p, seed, stage.rounds) for seed in stage.seeds for p in needed]
        asked += trials
        kept = []
        if len(results) == len(trials) and results and number < len(planned):
            found = StudyResult(study, results)
            kept = best_combinations(found, needed, planned[number].settings)
    return asked


def last_stages(stages: Iterable[Sequence[TrialResult]]) -> list[TrialResult]:
    """Return each combination's results in the last stage in which it has any.

    Args:
        stages: The results of each stage, in order.
    """
    found: dict[Combination, list[TrialResult]] = {}
    for results in stages:
        later: dict[Combination, list[TrialResult]] = {}
        for one in results:
            later.setdefault(one.trial.points, []).append(one)
        found |= later
    return [one for results in found.values() for one in results]


def shorter_runs(
    stages: Iterable[Sequence[TrialResult]], last: Iterable[TrialResult]
) -> list[TrialResult]:
    """Return the results of all stages that are not among the last ones."""
    names = {one.name for one in last}
    return [one for results in stages for one in results if one.name not in names]
