"""The client learning rates that ``fedsi suggest-lr`` gives for the combinations of a study."""

from collections.abc import Callable, Mapping, Sequence

from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.experiment import Experiment
from fedsi.learning.suggested_rate import suggest_rate
from fedsi.threads import torch_threads
from simulations.initial_weights import initial_weights
from simulations.studies.study import Combination, Study

Suggested = Mapping[str, Sequence[float]]
"""A rate for each seed, by the name of an arm at a level."""


def place_name(study: Study, points: Combination) -> str:
    """Return the name of a combination's arm and level, without what is tuned."""
    return "-".join(point.short for point in points if point.axis not in study.tune)


def suggested_rates(
    study: Study,
    population_of: Callable[[Experiment], Population],
    known: Suggested,
    progress: Progress,
) -> Suggested:
    """Return the suggestions for each arm at each level, a rate for each seed.

    Args:
        study: The study.
        population_of: Returns the population of an experiment.
        known: Suggestions that are there already.
        progress: Called with the number of finished ones.
    """
    first = {place_name(study, points): points for points in reversed(study.combinations())}
    found = {}
    for number, (name, points) in enumerate(sorted(first.items())):
        progress("suggesting learning rates", number, len(first))
        if len(known.get(name, ())) == study.seeds:
            found[name] = known[name]
            continue
        found[name] = [
            _rate(experiment, population_of(experiment))
            for experiment in (study.trial(points, seed).experiment for seed in study.all_seeds)
        ]
    return found


def _rate(experiment: Experiment, population: Population) -> float:
    with torch_threads(1):
        return suggest_rate(experiment, population, initial_weights(experiment, population)).rate
