"""What is told about a comparison."""

from simulations.reports.figures import comparison_figure, label
from simulations.reports.findings import enumerate_words, findings, table
from simulations.reports.study import Report
from simulations.studies.compare import Comparison


def comparison_report(comparison: Comparison) -> Report:
    """Return the table, the figure and the findings of a comparison."""
    header, rows = table(comparison)
    names = enumerate_words([label(name) for name in comparison.architectures])
    return Report(
        kind="comparison",
        stem="comparison",
        title=f"{names} on {comparison.summary.corpus}",
        table_title="Held-out loss (nats per token) by client learning rate",
        header=header,
        rows=rows,
        figure=comparison_figure(comparison),
        caption=(
            "Held-out loss against rounds at each architecture's best client learning rate (left) "
            "and final held-out loss against client learning rate (right; a cross marks a run that "
            "diverged)."
        ),
        findings=findings(comparison),
        changes="the architecture, the client learning rate and the seed",
        values=comparison.to_json(),
    )
