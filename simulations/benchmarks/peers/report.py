"""The table and the figure of a comparison with peers."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from fedsi.files import make_folder, write_atomically
from simulations.benchmarks.peers.measure import Measured
from simulations.reports.figures import COLOURS, STYLE, label, save_figure

NAME = "peers"


def write_report(
    measured: Sequence[Measured], machine: Mapping[str, str | int], folder: Path
) -> None:
    """Write ``peers.csv``, ``peers.md`` and the figure.

    Raises:
        UserError: The folder cannot be written.
    """
    make_folder(folder)
    text = io.StringIO(newline="")
    rows = [asdict(one) for one in measured]
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / f"{NAME}.csv", text.getvalue().encode())
    write_atomically(folder / f"{NAME}.md", _markdown(measured, machine).encode())
    save_figure(_figure(measured), folder / NAME)


def _markdown(measured: Sequence[Measured], machine: Mapping[str, str | int]) -> str:
    lines = [
        "| model | parameters | fedsi, clients/s | pfl, clients/s | ratio | weights differ by |",
        "|---|---|---|---|---|---|",
    ]
    for one in measured:
        speeds = f"{one.fedsi_clients_per_second:.1f} | {one.pfl_clients_per_second:.1f}"
        lines.append(
            f"| {label(one.architecture)} {one.size} | {one.parameters:,} | {speeds} | "
            f"{one.ratio:.2f} | {one.difference:.0e} |"
        )
    described = ", ".join(f"{key} {value}" for key, value in machine.items())
    return "\n".join([*lines, "", f"One thread each, round by round in turn; {described}.", ""])


def _figure(measured: Sequence[Measured]) -> Figure:
    architectures = list(dict.fromkeys(one.architecture for one in measured))
    sizes = list(dict.fromkeys(one.size for one in measured))
    ratios = {(one.architecture, one.size): one.ratio for one in measured}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(architectures)
        for place, architecture in enumerate(architectures):
            axes.bar(
                [k + (place + 0.5) * width - 0.4 for k in range(len(sizes))],
                [ratios.get((architecture, size), 0.0) for size in sizes],
                width * 0.92,
                color=COLOURS[architecture],
                label=label(architecture),
            )
        axes.axhline(1, color="#666666", linestyle=":", linewidth=1.2)
        axes.set_xticks(range(len(sizes)), sizes)
        axes.set_axisbelow(True)
        axes.grid(visible=False, axis="x")
        axes.set(
            xlabel="parameters",
            ylabel="times as many clients per second",
            title="fedsi over pfl-research, one thread, same weights",
        )
        axes.legend(frameon=True, framealpha=1, edgecolor="none")
    return figure
