"""The table and the figure of a comparison with peers."""

from collections.abc import Sequence
from dataclasses import asdict

import matplotlib as mpl
from matplotlib.figure import Figure

from simulations.benchmarks.peers.measure import PeerMeasurement
from simulations.benchmarks.report import Measurements, grouped_bars
from simulations.reports.figures import STYLE, label

PROJECTS = {"pfl": "pfl-research", "flower": "Flower's simulation"}
"""Names of the peers' projects."""


def peers_report(measured: Sequence[PeerMeasurement], files: str) -> Measurements:
    """Return the comparison with one peer.

    Args:
        measured: The measurements of each model.
        files: Name of the report's files.
    """
    name = PROJECTS[measured[0].peer]
    return Measurements(
        name=files,
        rows=[asdict(one) for one in measured],
        header=(
            "model",
            "parameters",
            "fedsi, clients/s",
            f"{name}, clients/s",
            "ratio",
            "weights differ by",
        ),
        table=[
            (
                f"{label(one.architecture)} {one.size}",
                f"{one.parameters:,}",
                f"{one.fedsi_clients_per_second:.1f}",
                f"{one.peer_clients_per_second:.1f}",
                f"{one.ratio:.2f}",
                f"{one.difference:.0e}",
            )
            for one in measured
        ],
        note="One thread each, round by round in turn",
        figure=_figure(measured, name),
    )


def _figure(measured: Sequence[PeerMeasurement], name: str) -> Figure:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        grouped_bars(axes, {(one.architecture, one.size): one.ratio for one in measured})
        axes.axhline(1, color="#666666", linestyle=":", linewidth=1.2)
        axes.set(
            ylabel="times as many clients per second",
            title=f"fedsi over {name}, one thread, same weights",
        )
    return figure
