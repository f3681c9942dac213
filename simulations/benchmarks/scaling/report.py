"""The table and the figure of the scaling benchmark."""

from collections.abc import Sequence
from dataclasses import asdict

import matplotlib as mpl
from matplotlib.figure import Figure

from simulations.benchmarks.report import Measurements
from simulations.benchmarks.scaling.finding import Finding
from simulations.reports.figures import STYLE, colour_of


def scaling_report(findings: Sequence[Finding]) -> Measurements:
    """Return the table and the figure of all findings."""
    return Measurements(
        name="scaling",
        rows=[asdict(finding) for finding in findings],
        header=("measure", "value", "target"),
        table=[(f.measure, f"{f.value:.2f} {f.unit}".strip(), f.target) for f in findings],
        note="One thread per worker; rounds with different numbers of workers in turn",
        figure=_figure(findings),
    )


def _figure(findings: Sequence[Finding]) -> Figure:
    """Draw the speed-ups, and the memory of a worker against the cohort."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        speed, memory = figure.subplots(1, 2)
        ratios = [(f.measure, f.value) for f in findings if " over one" in f.measure]
        ratios += [(f.measure, f.value) for f in findings if " workers over " in f.measure]
        speed.barh(*zip(*ratios, strict=True), color=colour_of("si_cifg"))
        speed.axvline(1, color="#666666", linestyle=":", linewidth=1.2)
        speed.set(xlabel="times as fast", title="More workers")
        peaks = [f for f in findings if f.measure.startswith("peak memory")]
        cohorts = [f.measure.rpartition(" ")[2] for f in peaks]
        memory.bar(cohorts, [f.value for f in peaks], color=colour_of("cifg"))
        memory.set(
            xlabel="clients in a round",
            ylabel="times the model's size",
            title="Peak memory of a worker",
        )
        for axes, along in ((speed, "y"), (memory, "x")):
            axes.set_axisbelow(True)
            axes.grid(visible=False, axis=along)
    return figure
