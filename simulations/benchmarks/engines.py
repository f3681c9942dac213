"""Seconds of a round, and of a run's start, on each engine of this machine.

A client takes one step on one example, so that most of a round is what an engine pays for: messages
with the parameters, passes over each client's parameters, sums. All engines run the same experiment
and must end with the same bits.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from fedsi.data.corpus import Progress
from fedsi.data.prepare import prepare
from fedsi.experiment import Experiment
from server.round_record import RoundRecord
from simulations.benchmarks.loopback import two_supernodes
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.report import Measurements
from simulations.engines.table import NO_OPTIONS, EngineOptions
from simulations.reports.figures import STYLE
from simulations.simulation import simulate

LONGEST_REPLY = 600.0
"""Time limit of a node's reply in seconds."""


Nodes = Callable[[Path], AbstractContextManager[EngineOptions]]
"""Starts nodes on a population's folder, yields the options of a run on them, and ends them."""


def by_the_engine(options: EngineOptions) -> Nodes:
    """Return the ``Nodes`` of an engine that starts and ends them itself."""
    return lambda _: nullcontext(options)


@dataclass(frozen=True)
class Way:
    """A way to run an experiment on this machine."""

    engine: str
    workers: int = 1
    nodes: Nodes = by_the_engine(NO_OPTIONS)  # noqa: RUF009
    """Starts the nodes, and ends them."""
    needs: str = ""
    """The package without which it is left out."""


WAYS = {
    "in process, 1 worker": Way("in_process"),
    "in process, 2 workers": Way("in_process", workers=2),
    "Ray, 2 nodes": Way("ray", nodes=by_the_engine(EngineOptions(nodes=2)), needs="ray"),
    "deployed, 2 SuperNodes": Way("deployed", nodes=two_supernodes),
}


@dataclass(frozen=True)
class EngineRound:
    """Rounds of one experiment on one engine."""

    way: str
    parameters: int
    cohort: int
    start_seconds: float
    """Seconds until the first round begins: processes, connections, descriptions, and the
    evaluation of the untrained model."""
    round_seconds: float
    """Median seconds of a round, the first one dropped."""
    model_sha256: str


def engines_experiment(base: Experiment, rounds: int) -> Experiment:
    """Return the experiment with one step on one example for each client, evaluated at its end."""
    return base.updated(
        {
            "data.sequence_length": 10,
            "client.batch_size": 1,
            "client.max_steps": 1,
            "server.rounds": rounds,
            "server.evaluate_every": rounds,
            "server.evaluation_clients": 2,
            "server.round_timeout": LONGEST_REPLY,
        }
    )


def measure_engines(
    experiment: Experiment, ways: Sequence[str], cache: Path, tell: Progress
) -> list[EngineRound]:
    """Run an experiment in each of some ways; those that miss their package are left out.

    Args:
        experiment: The experiment, of at least two rounds.
        ways: Keys of ``WAYS``.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: Two engines gave different bits.
    """
    prepare(experiment.data, cache, tell)
    found: list[EngineRound] = []
    for number, name in enumerate(ways):
        tell(name, number, len(ways))
        way = WAYS[name]
        if not way.needs or importlib.util.find_spec(way.needs):
            found.append(_measured(name, way, experiment, cache))
    if len({one.model_sha256 for one in found}) > 1:
        raise BenchmarkError(f"the engines gave different bits: {found}")
    return found


def _measured(name: str, way: Way, experiment: Experiment, cache: Path) -> EngineRound:
    records: list[RoundRecord] = []
    ends: list[float] = []

    def on_round(_: Experiment, record: RoundRecord) -> None:
        records.append(record)
        ends.append(time.perf_counter())

    population, began = prepare(experiment.data, cache), time.perf_counter()
    with way.nodes(population) as options:
        result = simulate(
            experiment,
            engine=way.engine,
            workers=way.workers,
            engine_options=options,
            cache=cache,
            on_round=on_round,
        )
    if result.summary.clients_failed:
        raise BenchmarkError(f"{result.summary.clients_failed} clients failed on {name}")
    return EngineRound(
        way=name,
        parameters=result.summary.parameters,
        cohort=experiment.server.cohort_size,
        start_seconds=ends[0] - records[0].train_seconds - began,
        round_seconds=statistics.median(record.train_seconds for record in records[1:]),
        model_sha256=result.summary.model_sha256,
    )


def engines_report(measured: Sequence[EngineRound]) -> Measurements:
    """Return the table and the figure."""
    return Measurements(
        name="engines",
        rows=[asdict(one) for one in measured],
        header=("engine", "clients x parameters", "s to start", "s per round", "SHA-256"),
        table=[
            (
                one.way,
                f"{one.cohort} x {one.parameters:,}",
                f"{one.start_seconds:.1f}",
                f"{one.round_seconds:.2f}",
                one.model_sha256[:8],
            )
            for one in measured
        ],
        note="One step on one example for each client; the first round is dropped; wall-clock time",
        figure=_figure(measured),
    )


def _figure(measured: Sequence[EngineRound]) -> Figure:
    sizes = list(dict.fromkeys((one.cohort, one.parameters) for one in measured))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.5 * len(sizes), 2.6), layout="constrained")
        panels = figure.subplots(1, len(sizes), squeeze=False)[0]
        for axes, (cohort, parameters) in zip(panels, sizes, strict=True):
            shown = [
                one for one in measured if (one.cohort, one.parameters) == (cohort, parameters)
            ]
            axes.barh([one.way for one in shown], [one.round_seconds for one in shown])
            axes.invert_yaxis()
            axes.set_title(f"{cohort} clients x {parameters:,} parameters")
            axes.set_xlabel("seconds per round")
    return figure
