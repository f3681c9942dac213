"""Speed-up with more workers, and memory of a worker."""

import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fedsi.data.corpus import Progress
from fedsi.experiment import Experiment
from simulations.benchmarks.lockstep import Contestant, contestant
from simulations.benchmarks.machine import MIB, BenchmarkError
from simulations.benchmarks.peers.measure import fedsi_command
from simulations.benchmarks.scaling.finding import Finding

MEMORY_WORKERS = 2
"""With two workers, each is a separate process."""


def measure_workers(
    experiment: Experiment, population: Path, workers: Sequence[int], folder: Path, tell: Progress
) -> list[Finding]:
    """Run the same rounds with each number of workers, in turn.

    The machine's second core is worth less than its first, because caches, memory and power are
    shared. The control is two independent runs of one worker each: their joint speed relative to
    one of them alone is the most that two workers can reach.

    Args:
        experiment: The experiment; its first round is dropped.
        population: Its folder.
        workers: The numbers of workers; the others are compared with the first.
        folder: Folder for the processes' files.
        tell: Called to report progress.

    Raises:
        BenchmarkError: A process died, or the number of workers changed the result.
    """
    rounds = experiment.server.rounds
    alone, *more = workers
    places = {f"{n} workers": n for n in workers} | {"control": alone}
    seconds: dict[str, list[float]] = {name: [] for name in (*places, "together")}
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(
                contestant(name, write_task(experiment, population, n, folder / name))
            )
            for name, n in places.items()
        }
        together = [
            stack.enter_context(
                contestant(
                    "control", write_task(experiment, population, alone, folder / f"pair {k}")
                )
            )
            for k in range(2)
        ]
        for number in range(rounds):
            for name, one in started.items():
                seconds[name].append(float(one.round()["seconds"]))
            seconds["together"].append(_slowest(together))
            tell("workers", number + 1, rounds)
        for one in (*started.values(), *together):
            one.finish()
    _check_bits([folder / name / "fedsi.npy" for name in places])
    return _speeds(experiment, alone, more, {name: taken[1:] for name, taken in seconds.items()})


def measure_memory(
    experiment: Experiment,
    population: Path,
    parameters: int,
    cohorts: Sequence[int],
    folder: Path,
    tell: Progress,
) -> list[Finding]:
    """Measure the peak memory of a worker process in a round of each size.

    The memory of the process before its first round (Python, torch, Flower, the population's index)
    is subtracted. The rest is divided by the size of the model, four bytes per parameter.

    Args:
        experiment: The experiment; one of its rounds is run.
        population: Its folder.
        parameters: Number of parameters of the model.
        cohorts: Cohort sizes.
        folder: Folder for the processes' files.
        tell: Called to report progress.

    Raises:
        BenchmarkError: A process died.
    """
    findings = []
    for k, cohort in enumerate(cohorts):
        sized = experiment.updated({"server.cohort_size": cohort, "server.rounds": 1})
        task = write_task(sized, population, MEMORY_WORKERS, folder / f"cohort {cohort}")
        with contestant(f"cohort {cohort}", task) as one:
            answer = one.round()
            one.finish()
        used = answer["peak"] - answer["before"]
        findings += [
            Finding(f"memory of a worker before, cohort {cohort}", answer["before"] / MIB, "MiB"),
            Finding(
                f"peak memory of a worker over the model, cohort {cohort}",
                used / (4 * parameters),
                "",
            ),
        ]
        tell("memory", k + 1, len(cohorts))
    return findings


def write_task(experiment: Experiment, population: Path, workers: int, folder: Path) -> list[str]:
    """Write the task of a fedsi process into a new folder; return the command that starts it."""
    folder.mkdir()
    settings = {
        "experiment": experiment.to_toml(),
        "population": str(population),
        "workers": workers,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return fedsi_command(folder)


def _slowest(pair: Sequence[Contestant]) -> float:
    """Run a round of each at the same time and return the seconds of the slower one."""
    for one in pair:
        one.begin()
    return max(float(one.end()["seconds"]) for one in pair)


def _check_bits(files: Sequence[Path]) -> None:
    first, *others = (np.load(file) for file in files)
    if any(other.tobytes() != first.tobytes() for other in others):
        raise BenchmarkError("the number of workers changed the trained model")


def _speeds(
    experiment: Experiment, alone: int, more: Sequence[int], seconds: dict[str, list[float]]
) -> list[Finding]:
    cohort = experiment.server.cohort_size
    ones = seconds[f"{alone} workers"]
    findings = []
    for n in (alone, *more):
        speed = cohort / statistics.median(seconds[f"{n} workers"])
        findings.append(Finding(f"clients/s, {n} workers", speed, "1/s"))
    for n in more:
        ratio = _median_ratio(ones, seconds[f"{n} workers"])
        findings.append(Finding(f"{n} workers over {alone}", ratio, "", ">= 1.8" if n == 2 else ""))
    control = 2 * _median_ratio(seconds["control"], seconds["together"])
    return [*findings, Finding("two separate runs over one (control)", control, "")]


def _median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(over, under, strict=True))
