"""fedsi's own matrix products and PyTorch's in the training steps of some models.

These are the measurements by which ``client.products=fastest`` decides, from the same file of the
cache folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from fedsi.data.corpus import Progress
from fedsi.experiment import Experiment
from fedsi.learning.product_times import ProductTime
from server.products import faster, product_times
from simulations.benchmarks.report import Measurements, grouped_bars
from simulations.reports.figures import STYLE, label

TRANSPOSED = "ᵀ"


@dataclass(frozen=True)
class ModelProducts:
    """The products of a model's step."""

    architecture: str
    size: str
    times: Sequence[ProductTime]

    @property
    def ratio(self) -> float:
        """Time of all of PyTorch's products over that of fedsi's own."""
        return sum(one.torch for one in self.times) / sum(one.own for one in self.times)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each shape, and last one for the whole step."""
        named = {"architecture": self.architecture, "size": self.size}
        for one in self.times:
            kind, rows, depth, columns = one.shape
            shape = f"{rows} x {depth} x {columns}{TRANSPOSED if kind == 'inner' else ''}"
            yield {**named, "product": shape, "own": one.own, "torch": one.torch, "faster": ""}
        own, torch = (sum(getattr(one, kind) for one in self.times) for kind in ("own", "torch"))
        whole = {"own": own, "torch": torch, "faster": faster(self.times)}
        yield {**named, "product": "all of a step", **whole}


def measure_model_products(
    experiment: Experiment, size: str, cache: Path, tell: Progress
) -> ModelProducts:
    """Measure one model, or read what was measured before.

    Args:
        experiment: The configuration.
        size: Name of the model's size.
        cache: Folder for measurements.
        tell: Called to report progress.
    """
    times = product_times(experiment, cache)
    tell(f"{experiment.model.architecture} {size}", 1, 1)
    return ModelProducts(experiment.model.architecture, size, times)


def products_report(measured: Sequence[ModelProducts]) -> Measurements:
    """Return the table and the figure."""
    rows = [row for one in measured for row in one.rows()]
    return Measurements(
        name="products",
        rows=rows,
        header=("model", "product", "own, ms", "PyTorch, ms", "ratio"),
        table=[
            (
                f"{label(row['architecture'])} {row['size']}",
                f"{row['product']}: {row['faster']}" if row["faster"] else row["product"],
                f"{1000 * row['own']:.3f}",
                f"{1000 * row['torch']:.3f}",
                f"{row['torch'] / row['own']:.2f}",
            )
            for row in rows
        ],
        note=f"Rows x depth x columns ({TRANSPOSED}: the second factor is transposed); one thread, "
        "steps with either products in turn, the fastest of each",
        figure=_figure(measured),
    )


def _figure(measured: Sequence[ModelProducts]) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        grouped_bars(axes, {(one.architecture, one.size): one.ratio for one in measured})
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set(ylabel="time of PyTorch's over own", title="Matrix products of a training step")
    return figure
