"""The whole scaling benchmark."""

from collections.abc import Sequence
from pathlib import Path

from fedsi.data.corpus import Progress
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from fedsi.models.build import build_model
from simulations.benchmarks.scaling.finding import Finding
from simulations.benchmarks.scaling.overhead import measure_overhead
from simulations.benchmarks.scaling.start import measure_start
from simulations.benchmarks.scaling.workers import measure_memory, measure_workers

STARTS = 4


def measure_scaling(
    experiment: Experiment,
    large: Experiment,
    workers: Sequence[int],
    cohorts: Sequence[int],
    folder: Path,
    cache: Path,
    tell: Progress,
) -> list[Finding]:
    """Measure workers, overhead, memory and start-up, one after the other.

    Args:
        experiment: Trained with each number of workers. Start-up is measured with the default
            experiment on its corpus.
        large: The experiment whose rounds' overhead and memory are measured, on the same corpus.
        workers: Numbers of workers.
        cohorts: Cohort sizes for the memory; the largest is used for the overhead.
        folder: Folder for temporary files.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: A process failed.
    """
    place = prepare(experiment.data, cache, tell)
    large_place = prepare(large.data, cache, tell)
    # Overhead and memory depend on clients, not on steps.
    brief = large.updated({"client.max_steps": 1, "server.cohort_size": max(cohorts)})
    words = open_population(large_place).description.vocabulary_size
    parameters = build_model(large, words).layout.size
    return [
        *measure_workers(experiment, place, workers, folder, tell),
        *measure_overhead(brief, large_place, folder),
        *measure_memory(brief, large_place, parameters, cohorts, folder, tell),
        *measure_start(Experiment(data=experiment.data), cache, STARTS, folder, tell),
    ]
