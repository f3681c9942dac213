"""Writes what a comparison leaves: table, figure, page."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedsi.experiment import Experiment
from fedsi.files import write_atomically
from simulations.reports.figures import comparison_figure, label, save_figure, svg
from simulations.reports.findings import findings, table
from simulations.studies.compare import Comparison, Outcome

CSV, JSON, FIGURE, PAGE = "comparison.csv", "comparison.json", "comparison", "report.html"


def write_comparison(comparison: Comparison, base: Experiment, folder: Path) -> None:
    """Write ``comparison.csv``, ``.json``, ``.png``, ``.svg`` and ``report.html``."""
    write_atomically(folder / CSV, comparison.table().to_csv(index=False).encode())
    text = json.dumps(comparison.to_json(), indent=1, allow_nan=False)
    write_atomically(folder / JSON, text.encode())
    figure = comparison_figure(comparison)
    save_figure(figure, folder / FIGURE)
    write_atomically(folder / PAGE, _page(comparison, base, svg(figure)).encode())


def _page(comparison: Comparison, base: Experiment, figure: str) -> str:
    environment = Environment(
        loader=PackageLoader("simulations.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    header, rows = table(comparison)
    summary = comparison.outcomes[0].summary
    names = " and ".join(label(name) for name in comparison.architectures)
    return environment.get_template("report.html.jinja").render(
        title=f"{names} on {summary['corpus']}",
        header=header,
        rows=rows,
        figure=figure[figure.index("<svg") :],
        findings=findings(comparison),
        runs=[_run(outcome) for outcome in comparison.outcomes],
        experiment=base.to_toml(),
        corpus=summary["corpus"],
        corpus_sha256=summary["corpus_sha256"],
        versions=", ".join(f"{name} {value}" for name, value in summary["versions"].items()),
    )


def _run(outcome: Outcome) -> dict[str, Any]:
    summary = outcome.summary
    good = not outcome.diverged
    return {
        "name": outcome.cell.name,
        "status": summary["status"],
        "rounds": summary["rounds"],
        "loss": f"{outcome.loss:.3f}" if good else "",
        "accuracy": f"{summary['heldout_accuracy_no_oov_no_eos']:.3f}" if good else "",
        "speed": f"{summary['clients_per_second']:.1f}",
        "sha256": summary["model_sha256"][:16],
    }
