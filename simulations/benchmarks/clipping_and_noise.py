"""Time that clipping and noise add to a round.

Everything is measured in a separate process, started as
``python -m simulations.benchmarks.clipping_and_noise EXPERIMENT.toml POPULATION``. For each
mechanism, a private run and one without privacy train the same cohorts on one thread, taking turns
by round. Times are CPU seconds, so other load does not distort them.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from fedsi.data.corpus import Progress
from fedsi.data.population import WHOLE, Description
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from server.differential_privacy import privacy_of
from server.nodes import Hosting
from server.rounds import initial_server_state, run_rounds
from simulations.benchmarks.own_process import measured_by
from simulations.benchmarks.report import Measurements
from simulations.engines.in_process import InProcessGrid
from simulations.engines.nodes_grid import FIRST_NODE
from simulations.reports.figures import STYLE, colour_of, label

TARGET = 0.15
"""Largest share of a round's time that privacy should add."""

SAMPLINGS = {"gaussian": "uniform", "blt": "shuffled"}
"""Sampling of both runs by mechanism: cohorts of the same size in every round."""


@dataclass(frozen=True)
class Overhead:
    """Rounds of one mechanism compared with rounds without privacy."""

    mechanism: str
    architecture: str
    size: str
    parameters: int
    cohort: int
    plain_seconds: float
    """Median seconds of a round without privacy."""
    private_seconds: float
    """Median seconds of a round with clipping and noise."""
    overhead: float
    """Median over rounds of the ratio of the two, minus 1."""


def measure_privacy(
    experiment: Experiment, size: str, cache: Path, tell: Progress
) -> list[Overhead]:
    """Measure clipping and noise of each mechanism.

    Args:
        experiment: The result of ``experiment_for``; the first of its rounds is dropped.
        size: Name of the model's size.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: The measuring process failed.
    """
    place = prepare(experiment.data, cache, tell)
    name = f"{experiment.model.architecture} {size}"
    tell(name, 0, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.toml"
        file.write_text(experiment.to_toml(), encoding="utf-8")
        found = measured_by("simulations.benchmarks.clipping_and_noise", file, place)
    tell(name, 1, 1)
    return [
        Overhead(
            architecture=experiment.model.architecture,
            size=size,
            cohort=experiment.server.cohort_size,
            **one,
        )
        for one in found
    ]


def contestants(experiment: Experiment, mechanism: str) -> tuple[Experiment, Experiment]:
    """Return a run without privacy and one with, with the same cohorts."""
    plain = experiment.updated(
        {
            "server.averaging": "uniform",
            "server.sampling": SAMPLINGS[mechanism],
            # The last round would be evaluated, and is never run.
            "server.rounds": experiment.server.rounds + 1,
            "server.evaluate_every": experiment.server.rounds + 1,
        }
    )
    private = {
        "privacy.mechanism": mechanism,
        "privacy.noise_multiplier": 1.0,
        # A small norm, so that updates are clipped.
        "privacy.clip_norm": 0.1,
    }
    return plain, plain.updated(private)


def time_privacy(experiment: Experiment, population: Path) -> list[dict[str, Any]]:
    """Measure in this process; return the fields of ``Overhead`` that the experiment lacks."""
    description = open_population(population).description
    found = []
    with InProcessGrid(population, 1) as grid:
        for mechanism in SAMPLINGS:
            plain, private = (
                _rounds(grid, one, description) for one in contestants(experiment, mechanism)
            )
            seconds = [(_timed(plain), _timed(private)) for _ in range(experiment.server.rounds)]
            of_plain, of_private = zip(*seconds[1:], strict=True)
            ratios = [b / a for a, b in zip(of_plain, of_private, strict=True)]
            found.append(
                {
                    "mechanism": mechanism,
                    "parameters": len(initial_server_state(experiment, description).parameters),
                    "plain_seconds": statistics.median(of_plain),
                    "private_seconds": statistics.median(of_private),
                    "overhead": statistics.median(ratios) - 1,
                }
            )
    return found


def _rounds(
    grid: InProcessGrid, experiment: Experiment, description: Description
) -> Iterator[object]:
    private = privacy_of(experiment, description.training_clients, description.content_digest)
    state = initial_server_state(experiment, description, private)
    return run_rounds(
        grid,
        lambda: Hosting({FIRST_NODE: WHOLE}),
        experiment,
        description,
        None,
        state,
        private,
        seed=experiment.seed,
    )


def _timed(rounds: Iterator[object]) -> float:
    """Run a round and return its CPU seconds."""
    began = time.process_time()
    next(rounds)
    return time.process_time() - began


def privacy_report(measured: Sequence[Overhead]) -> Measurements:
    """Return the table and the figure."""
    return Measurements(
        name="privacy",
        rows=[asdict(one) for one in measured],
        header=("model", "parameters", "mechanism", "plain s", "private s", "overhead", "target"),
        table=[
            (
                f"{label(one.architecture)} {one.size}",
                f"{one.parameters:,}",
                one.mechanism,
                f"{one.plain_seconds:.3f}",
                f"{one.private_seconds:.3f}",
                f"{one.overhead:+.1%}",
                f"< {TARGET:.0%}",
            )
            for one in measured
        ],
        note=(
            f"CPU seconds of a round of {measured[0].cohort} clients, one thread, rounds with and "
            "without privacy in turn"
        ),
        figure=_figure(measured),
    )


def _figure(measured: Sequence[Overhead]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        names = [f"{label(one.architecture)} {one.size}\n{one.mechanism}" for one in measured]
        colours = [colour_of(one.architecture) for one in measured]
        axes.bar(names, [100 * one.overhead for one in measured], 0.6, color=colours)
        axes.axhline(100 * TARGET, color="#666666", linestyle=":", linewidth=1.2)
        axes.text(-0.3, 100 * TARGET - 0.2, "target: less", va="top", color="#666666")
        axes.set_axisbelow(True)
        axes.grid(visible=False, axis="x")
        axes.set(ylabel="% of a round's time", title="What clipping and noise add")
    return figure


if __name__ == "__main__":
    sys.stdout.write(
        json.dumps(time_privacy(Experiment.from_file(Path(sys.argv[1])), Path(sys.argv[2])))
    )
