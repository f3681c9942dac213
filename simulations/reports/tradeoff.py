"""What is told about a trade-off."""

from simulations.reports.figures import label
from simulations.reports.findings import enumerate_words
from simulations.reports.study import Report
from simulations.reports.tradeoff_figure import tradeoff_figure
from simulations.reports.tradeoff_findings import tradeoff_findings, tradeoff_table
from simulations.studies.tradeoff import Tradeoff


def tradeoff_report(tradeoff: Tradeoff) -> Report:
    """Return the table, the figure and the findings of a trade-off."""
    header, rows = tradeoff_table(tradeoff)
    names = enumerate_words([label(name) for name in tradeoff.architectures])
    return Report(
        kind="trade-off",
        stem="tradeoff",
        title=f"Privacy and utility of {names} on {tradeoff.summary.corpus}",
        table_title="Held-out loss (nats per token) and word accuracy by epsilon",
        header=header,
        rows=rows,
        figure=tradeoff_figure(tradeoff),
        caption=(
            "Final held-out loss (above) and word accuracy (below) against epsilon (left) and "
            "against the standard deviation of the noise on the mean update (right). Axes are "
            "logarithmic; without noise, beyond the dashed line, epsilon is infinite. Bars are "
            "half the range of the seeds; a cross marks a setting in which a run diverged."
        ),
        findings=tradeoff_findings(tradeoff),
        changes="the architecture, the noise and the seed",
        values=tradeoff.to_json(),
    )
