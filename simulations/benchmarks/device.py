"""Clients per second of training many at once on a device, against one after another.

Each model is trained on the same clients of the same round in three ways: one by one on the
processor, one at a time on the device, and ``client.lanes`` at a time on the device. The last is
done twice, and must have the same bits; its sum is compared with that of the processor.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import Experiment
from fedsi.learning.block import BlockTrainer
from fedsi.models.build import initial_parameters
from fedsi.sums.fixed_point import decode
from fedsi.threads import torch_threads
from server.cohorts.sampling import draw_cohort
from simulations.benchmarks.machine import BenchmarkError
from simulations.benchmarks.report import Measurements, grouped_bars
from simulations.reports.figures import STYLE, label

FEW = 20
"""Clients of which the slower ways train at most."""


@dataclass(frozen=True)
class DeviceRound:
    """One model's round on a device."""

    architecture: str
    size: str
    parameters: int
    device: str
    cohort: int
    lanes: int
    processor_clients_per_second: float
    """One by one on the processor."""
    single_clients_per_second: float
    """One at a time on the device."""
    clients_per_second: float
    """All lanes at a time on the device."""
    difference: float
    """Distance of the sum of some updates from the processor's, relative to it."""


def measure_device(
    experiment: Experiment, size: str, cohorts: Sequence[int], cache: Path, tell: Progress
) -> Iterator[DeviceRound]:
    """Train cohorts of several sizes and yield their rounds.

    Args:
        experiment: Clients train vectorised on the device.
        size: The name of the model's size.
        cohorts: Numbers of clients.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: The same round in reverse order had different bits.
        UserError: The device is not there.
    """
    population = open_population(prepare(experiment.data, cache, tell))
    settings = experiment.client
    alone = {"client.lanes": 1}
    away = {"client.device": "cpu", "client.step": "one_by_one", "client.lanes": 32}
    for cohort in cohorts:
        clients = _cohort(experiment, population, cohort)
        few = clients[:FEW]
        seconds, sums, parameters = _train(experiment, population, clients)
        # In reverse order, clients have other lanes and other companions.
        if not np.array_equal(_train(experiment, population, clients[::-1])[1], sums):
            raise BenchmarkError(
                f"the same round in another order had other bits on {settings.device}"
            )
        single, *_ = _train(experiment.updated(alone), population, few)
        slow, expected, _ = _train(experiment.updated(away), population, few)
        ours = _train(experiment, population, few)[1] if len(clients) > FEW else sums
        tell(f"{experiment.model.architecture} {size}", cohort, max(cohorts))
        yield DeviceRound(
            experiment.model.architecture,
            size,
            parameters,
            settings.device,
            len(clients),
            settings.lanes,
            len(few) / slow,
            len(few) / single,
            len(clients) / seconds,
            _distance(ours, expected),
        )


def _cohort(experiment: Experiment, population: Population, cohort: int) -> list[int]:
    chosen = experiment.updated({"server.cohort_size": cohort})
    training = population.description.training_clients
    if cohort > training:
        raise BenchmarkError(f"the corpus has {training} clients, too few for cohorts of {cohort}")
    drawn = draw_cohort(chosen, training, None, 1, experiment.seed).reporting
    return [int(client) for client in drawn]


def _train(
    experiment: Experiment, population: Population, clients: Sequence[int]
) -> tuple[float, NDArray[np.int64], int]:
    """Train a round twice; return the second one's seconds, its sum, and the model's size."""
    trainer = BlockTrainer(experiment, population)
    start = initial_parameters(trainer.model, experiment.seed)
    with torch_threads(1):
        for _ in range(2):
            sums = np.zeros(len(start), np.int64)
            begun = time.perf_counter()
            trainer.train(start, clients, 1, sums)
            seconds = time.perf_counter() - begun
    return seconds, sums, len(start)


def _distance(ours: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    difference = np.linalg.norm(decode(ours) - decode(expected))
    return float(difference / np.linalg.norm(decode(expected)))


def device_report(measured: Sequence[DeviceRound]) -> Measurements:
    """Return the table and the figure of some rounds."""
    device = measured[0].device
    return Measurements(
        name="device",
        rows=[asdict(one) for one in measured],
        header=(
            "model",
            "parameters",
            "cohort",
            "one by one, processor",
            f"one at a time, {device}",
            f"{measured[0].lanes} at a time, {device}",
            "over one at a time",
            "over the processor",
            "updates differ by",
        ),
        table=[
            (
                f"{label(one.architecture)} {one.size}",
                f"{one.parameters:,}",
                f"{one.cohort:,}",
                f"{one.processor_clients_per_second:.1f}",
                f"{one.single_clients_per_second:.1f}",
                f"{one.clients_per_second:.1f}",
                f"{one.clients_per_second / one.single_clients_per_second:.2f}",
                f"{one.clients_per_second / one.processor_clients_per_second:.2f}",
                f"{one.difference:.0e}",
            )
            for one in measured
        ],
        note="Clients per second, one thread, the second of two equal rounds",
        figure=_figure(measured),
    )


def _figure(measured: Sequence[DeviceRound]) -> Figure:
    cohort = max(one.cohort for one in measured)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        ratios = {
            (one.architecture, one.size): one.clients_per_second / one.single_clients_per_second
            for one in measured
            if one.cohort == cohort
        }
        grouped_bars(axes, ratios)
        axes.axhline(1, color="#666666", linestyle=":", linewidth=1.2)
        axes.set(
            ylabel="times as many clients per second",
            title=f"{measured[0].lanes} clients at a time over one at a time, "
            f"{measured[0].device}, cohorts of {cohort:,}",
        )
    return figure
