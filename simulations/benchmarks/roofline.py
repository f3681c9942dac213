"""Arithmetic throughput of the training steps, compared with the machine's fastest products.

Everything is measured in a separate process, started as ``python -m simulations.benchmarks.roofline
EXPERIMENT.toml POPULATION``: the same training steps and products of large matrices take turns on
one thread. Times are CPU seconds, so other load does not distort them.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fedsi.data.batches import training_batches
from fedsi.data.corpus import Progress
from fedsi.data.population import Population
from fedsi.data.prepare import open_population, prepare
from fedsi.experiment import ClientSettings, Experiment
from fedsi.kernels.cpu import output as output_layer
from fedsi.kernels.cpu import recurrent_pass, transformer_pass
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.learning.client import LocalTrainer
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.build import build_model, initial_parameters
from fedsi.models.model import Model
from fedsi.models.table import architecture
from fedsi.tables import load
from fedsi.tasks.table import task_of
from fedsi.tasks.task import Batch
from server.cohorts.sampling import draw_cohort
from simulations.benchmarks.own_process import measured_by
from simulations.benchmarks.report import Measurements, grouped_bars
from simulations.benchmarks.stopwatch import timed
from simulations.reports.figures import STYLE, label

SHAPES = (
    (512, 512, 512),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
    (256, 1024, 1024),
    (128, 670, 2010),
    (128, 256, 512),
)
"""Rows, inner size and columns of the products. The fastest product of PyTorch's library or fedsi's
own is the reference; a slower one would flatter the steps."""

PRODUCT_SECONDS = 0.1
"""Shortest time for which each shape is measured, in each repeat."""


@dataclass(frozen=True)
class Roofline:
    """Throughput of one model's training steps, compared with matrix products."""

    architecture: str
    size: str
    parameters: int
    positions: float
    """Mean number of targets of a step."""
    milliseconds: float
    """Time of a step: median over repeats of the mean over steps."""
    gflops: float
    """Useful GFLOP/s of the steps, median over repeats."""
    sgemm_gflops: float
    """GFLOP/s of the fastest product, median over repeats."""
    share: float
    """Median over repeats of the ratio of the two."""
    output: float
    """Share of a step's time spent in the output layer, including loss and update."""
    sequence: float
    """Share of a step's time spent from word to word, forwards and backwards: the recurrence
    without its kernel's gradient, or the attention."""


def useful_flops(model: Model, batch: Batch) -> int:
    """Return the number of floating-point operations that a training step needs.

    Only matrix products count, and only rows of real positions, i.e. those with a target. The
    backward pass is twice as much as the forward pass: the gradients of each product by both
    factors.
    """
    by_hand = load(str(architecture(model.settings.architecture).by_hand))
    return 6 * int(by_hand.multiplications(model, batch))


def measure_roofline(experiment: Experiment, size: str, cache: Path, tell: Progress) -> Roofline:
    """Measure one model.

    Args:
        experiment: The result of ``experiment_for``: the batches are those of the first cohort, and
            the number of rounds is the number of repeats.
        size: Name of the model's size.
        cache: Folder for populations.
        tell: Called to report progress.

    Raises:
        BenchmarkError: The measuring process failed.
    """
    place = prepare(experiment.data, cache, tell)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.toml"
        file.write_text(experiment.to_toml(), encoding="utf-8")
        found = measured_by("simulations.benchmarks.roofline", file, place)
    tell(f"{experiment.model.architecture} {size}", 1, 1)
    return Roofline(experiment.model.architecture, size, **found)


def time_roofline(experiment: Experiment, population: Population) -> dict[str, Any]:
    """Measure in this process; return the fields of ``Roofline`` except its names."""
    torch.set_num_threads(1)
    model = build_model(experiment, population.description.vocabulary_size)
    start = initial_parameters(model, experiment.seed)
    trainer = LocalTrainer(model, experiment.client)
    batches = _batches(experiment, population)
    flops = sum(useful_flops(model, batch) for batch in batches)
    seconds, peaks = [], []
    for _ in range(experiment.server.rounds):
        peaks.append(_fastest_product())
        began = time.process_time()
        # All batches are trained as those of one client, so that starting a client costs nothing.
        trainer.begin(start)
        trained = trainer.train(batches)
        seconds.append(time.process_time() - began)
    rates = [flops / taken for taken in seconds[1:]]
    return {
        "parameters": model.layout.size,
        "positions": trained.tokens / len(batches),
        "milliseconds": 1000 * statistics.median(seconds[1:]) / len(batches),
        "gflops": statistics.median(rates) / 1e9,
        "sgemm_gflops": statistics.median(peaks[1:]) / 1e9,
        "share": statistics.median(r / p for r, p in zip(rates, peaks[1:], strict=True)),
        **_profile(trainer, start, batches),
    }


def roofline_report(measured: Sequence[Roofline]) -> Measurements:
    """Return the table and the figure."""
    return Measurements(
        name="roofline",
        rows=[asdict(one) for one in measured],
        header=(
            "model",
            "parameters",
            "targets per step",
            "ms per step",
            "useful GFLOP/s",
            "best sgemm, GFLOP/s",
            "share",
            "output layer",
            "word to word",
        ),
        table=[
            (
                f"{label(one.architecture)} {one.size}",
                f"{one.parameters:,}",
                f"{one.positions:.0f}",
                f"{one.milliseconds:.2f}",
                f"{one.gflops:.1f}",
                f"{one.sgemm_gflops:.1f}",
                f"{one.share:.0%}",
                f"{one.output:.0%}",
                f"{one.sequence:.0%}",
            )
            for one in measured
        ],
        note="One thread, steps and products in turn; the last two columns are shares of a step",
        figure=_figure(measured),
    )


def _batches(experiment: Experiment, population: Population) -> list[Batch]:
    size, task = population.description.training_clients, task_of(experiment)
    clients = draw_cohort(experiment, size, None, 1, experiment.seed).reporting
    return [
        task.batch(rows)
        for client in clients.tolist()
        for rows in training_batches(
            population.examples(client),
            experiment.client,
            experiment.data.max_examples_per_client,
            seed=experiment.seed,
            round_number=1,
            client=client,
        )
    ]


def _profile(trainer: LocalTrainer, start: Tensor, batches: Sequence[Batch]) -> dict[str, float]:
    """Return the shares of the steps' time spent in their parts, measured in a further repeat."""
    trainer.begin(start)
    with (
        timed(FusedSgd, "step") as step,
        timed(output_layer, "output_gradient") as packed_output,
        timed(recurrent_pass, "output_gradient") as output,
        timed(output_layer.OutputGradient, "apply") as applied,
        timed(recurrent_pass, "run_forward") as forward,
        timed(recurrent_pass, "run_backward") as backward,
        timed(transformer_pass, "attend_forward") as attention,
        timed(transformer_pass, "attend_backward") as attention_backward,
    ):
        trainer.train(batches)
    layer = (packed_output, output, applied)
    sequence = (forward, backward, attention, attention_backward)
    return {
        "output": sum(watch.seconds for watch in layer) / step.seconds,
        "sequence": sum(watch.seconds for watch in sequence) / step.seconds,
    }


def _fastest_product() -> float:
    """Return the FLOP/s of the fastest single-precision matrix product."""
    return max(_product_rate(*shape) for shape in SHAPES)


def _product_rate(rows: int, inner: int, columns: int) -> float:
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    out = torch.empty(rows, columns)
    own = Products(ClientSettings())
    fastest = min(
        _fastest_of(lambda: torch.mm(left, right, out=out)),
        _fastest_of(lambda: own.update(out, left, right)),
    )
    return 2 * rows * inner * columns / fastest


def _fastest_of(multiply: Callable[[], object]) -> float:
    multiply()
    fastest, deadline = float("inf"), time.process_time() + PRODUCT_SECONDS
    while time.process_time() < deadline:
        began = time.process_time()
        multiply()
        fastest = min(fastest, time.process_time() - began)
    return fastest


def _figure(measured: Sequence[Roofline]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        grouped_bars(axes, {(one.architecture, one.size): 100 * one.share for one in measured})
        axes.set_ylim(top=100)
        axes.set(
            ylabel="% of the best matrix product",
            title="Useful arithmetic of the training steps, one thread",
        )
    return figure


if __name__ == "__main__":
    found = time_roofline(
        Experiment.from_file(Path(sys.argv[1])),
        open_population(Path(sys.argv[2])),
    )
    sys.stdout.write(json.dumps(found))
