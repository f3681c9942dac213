"""Cost of a population of a million clients: it depends on the cohorts, not on the population.

Everything is measured in a separate process, started as ``python -m
simulations.benchmarks.large_population CLIENTS COHORT ROUNDS CACHE STARTED``.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from server.cohorts.availability import Trace
from server.cohorts.sampling import draw_cohort
from server.round_record import RoundRecord
from simulations.benchmarks.machine import MIB, machine, peak_memory
from simulations.benchmarks.own_process import measured_by
from simulations.cli import options
from simulations.cli.display import Display
from simulations.simulation import simulate

TARGETS = {"open_seconds": 2.0, "peak_memory_mib": 1024, "draw_milliseconds": 50.0}
DRAWS = 20

_SMALL = {"data.vocabulary_size": 500, "model.embedding_size": 16, "model.hidden_size": 32}


def measure_population(clients: int, cohort: int, rounds: int) -> dict[str, Any]:
    """Open a synthetic population, draw cohorts with every sampler, and train some.

    Raises:
        BenchmarkError: The measuring process failed.
    """
    with tempfile.TemporaryDirectory() as cache:
        module = "simulations.benchmarks.large_population"
        found = measured_by(module, clients, cohort, rounds, cache, time.time())
    slowest = max(draw["median"] for draw in found["draw_milliseconds"].values())
    measured = {**found, "draw_milliseconds": slowest}
    reached = {name: measured[name] < target for name, target in TARGETS.items()}
    return {**found, "targets": TARGETS, "reached": reached, **machine()}


def time_population(
    clients: int, cohort: int, rounds: int, cache: Path, started: float
) -> dict[str, Any]:
    """Measure in this process; ``started`` is the wall-clock time of its start."""
    import_seconds = time.time() - started
    experiment = Experiment().updated(
        {
            "data.corpus": "synthetic",
            "data.population": clients,
            "server.cohort_size": cohort,
            "server.rounds": rounds,
            "server.evaluate_every": rounds,
            **_SMALL,
        }
    )
    began = time.perf_counter()
    training_clients = open_population(prepare(experiment.data, cache)).description.training_clients
    open_seconds = time.perf_counter() - began
    draws = {name: _draw_times(e, training_clients, t) for name, e, t in _samplers(experiment)}
    records: list[RoundRecord] = []
    with Display(options.messages()) as display:

        def on_round(_: Experiment, record: RoundRecord) -> None:
            records.append(record)
            display.rounds("training", records, rounds)

        simulate(experiment, cache=cache, on_round=on_round)
    return {
        "clients": clients,
        "cohort": cohort,
        "rounds": rounds,
        "import_seconds": round(import_seconds, 3),
        "open_seconds": round(open_seconds, 3),
        "draw_milliseconds": draws,
        "train_seconds": round(sum(record.train_seconds for record in records), 2),
        "peak_memory_mib": round(peak_memory() / MIB),
    }


def _samplers(experiment: Experiment) -> Iterator[tuple[str, Experiment, Trace | None]]:
    yield "uniform", experiment, None
    yield "poisson", experiment.updated({"server.sampling": "poisson"}), None
    yield "shuffled", experiment.updated({"server.sampling": "shuffled"}), None
    yield "diurnal", experiment.updated({"devices.availability": "diurnal"}), None
    traced = experiment.updated({"devices.availability": "trace", "devices.trace": "generated"})
    clients = np.arange(experiment.data.population * 9 // 10)
    starts = np.random.default_rng(0).uniform(0, 86_400, len(clients))
    yield "trace", traced, Trace(clients, starts, starts + 3600, 90_000.0)


def _draw_times(
    experiment: Experiment, training_clients: int, trace: Trace | None
) -> dict[str, float]:
    times = []
    for round_number in range(1, DRAWS + 1):
        began = time.perf_counter()
        draw_cohort(experiment, training_clients, trace, round_number, experiment.seed)
        times.append(1000 * (time.perf_counter() - began))
    return {"median": round(statistics.median(times), 3), "largest": round(max(times), 3)}


if __name__ == "__main__":
    clients, cohort, rounds = (int(number) for number in sys.argv[1:4])
    sys.stdout.write(
        json.dumps(time_population(clients, cohort, rounds, Path(sys.argv[4]), float(sys.argv[5])))
    )
