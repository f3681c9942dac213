"""What is told about a study of length generalisation."""

from collections.abc import Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports.figures import STYLE, unigram_line
from simulations.reports.findings import enumerate_words, unigram_words
from simulations.reports.study import Report
from simulations.studies.lengths import LengthStudy, half_range
from simulations.text import for_markdown

LABELS = {
    "none": "no positions",
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "rotary": "rotary",
    "alibi": "ALiBi",
    "t5": "T5",
    "kerple": "Kerple",
    "fire": "FIRE",
}
COLOURS = {
    "none": "#333333",
    "learned": "#7a4fb0",
    "sinusoidal": "#b8860b",
    "rotary": "#c8500a",
    "alibi": "#1f5fa8",
    "t5": "#0a7f6e",
    "kerple": "#c2418a",
    "fire": "#d62728",
}
PACKING = (
    "At each length the same targets are asked for: a client's sentences are packed whole, one "
    "after the other, into sequences of that length, so a longer sequence adds earlier sentences."
)


def lengths_report(study: LengthStudy) -> Report:
    """Return the table, the figure and the findings of a study."""
    trained = study.trained_length
    return Report(
        kind="study",
        stem="lengths",
        title=f"Position encodings beyond {trained} words on {study.summary.corpus}",
        table_title="Held-out loss (nats per token) by sequence length",
        header=["", *(f"length {length}" for length in study.lengths), "beyond at the longest"],
        rows=[_row(study, name) for name in study.positions],
        figure=lengths_figure(study),
        caption=(
            "Held-out loss against sequence length over all targets (left) and over those at "
            f"positions beyond the {trained} of training (right; those are other targets at each "
            f"length). Bands reach from the best to the worst seed. {PACKING}"
        ),
        findings=lengths_findings(study),
        changes="the position encoding and the seed",
        values=study.to_json(),
    )


def markdown(report: Report) -> str:
    """Return the table of a report in Markdown."""
    rows = [report.header, ["---"] * len(report.header), *report.rows]
    lines = ["| " + " | ".join(map(for_markdown, row)) + " |" for row in rows]
    findings = [f"* {for_markdown(sentence)}" for sentence in report.findings]
    title = f"# {for_markdown(report.title)}"
    return "\n".join([title, "", report.table_title, "", *lines, "", *findings, ""])


def lengths_figure(study: LengthStudy) -> Figure:
    """Draw loss against length, of all targets and of those beyond the length of training."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        whole, beyond = figure.subplots(1, 2)
        for name in study.positions:
            settings = study.settings(name)
            _curve(whole, name, [(s.length, s.losses) for s in settings if s.losses])
            _curve(beyond, name, [(s.length, s.beyond) for s in settings if s.beyond])
        unigram_line(whole, study.summary.unigram_loss)
        whole.set(ylabel="held-out loss (nats per token)", title="All targets")
        beyond.set(title=f"At positions beyond {study.trained_length}")
        for axes in (whole, beyond):
            axes.axvline(study.trained_length, color="#bbbbbb", linestyle="--", linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(study.lengths, [str(length) for length in study.lengths])
            axes.minorticks_off()
            axes.set_xlabel("sequence length (dashed: that of training)")
        figure.legend(*whole.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _curve(axes: Axes, name: str, points: Sequence[tuple[int, Sequence[float]]]) -> None:
    if not points:
        return
    lengths = [length for length, _ in points]
    colour = COLOURS[name]
    axes.plot(
        lengths,
        [fmean(losses) for _, losses in points],
        color=colour,
        marker="o",
        ms=3,
        label=LABELS[name],
    )
    axes.fill_between(
        lengths,
        [min(losses) for _, losses in points],
        [max(losses) for _, losses in points],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )


def lengths_findings(study: LengthStudy) -> list[str]:
    """Return sentences that say what this study found, and nothing more."""
    summary = study.summary
    return [
        f"Corpus {summary.corpus} (SHA-256 {summary.corpus_sha256[:16]}), "
        f"{summary.architecture}, trained on at most {study.trained_length} words; "
        f"on the same targets {unigram_words(summary)}.",
        PACKING,
        *(_change(study, name) for name in study.positions),
        *_unreadable(study),
        _caveat(study),
    ]


def _change(study: LengthStudy, name: str) -> str:
    """Say how an encoding's loss changes from the shortest length that it reads to the longest."""
    settings = [setting for setting in study.settings(name) if setting.losses]
    diverged = study.diverged(name)
    spoiled = f" ({diverged} of {study.seeds} seeds diverged)" if diverged else ""
    if not settings:
        return f"{LABELS[name]}: no loss at any of these lengths{spoiled}."
    first, last = settings[0], settings[-1]
    if first is last:
        return f"{LABELS[name]}: {_text(first.losses)} at {first.length}{spoiled}."
    change = fmean(last.losses) - fmean(first.losses)
    return (
        f"{LABELS[name]}: {_text(first.losses)} at {first.length}, {_text(last.losses)} at "
        f"{last.length}, a change of {change:+.3f}{spoiled}."
    )


def _unreadable(study: LengthStudy) -> list[str]:
    rows = study.experiment.model.max_length
    beyond = [str(length) for length in study.lengths if length > rows]
    if "learned" not in study.positions or not beyond:
        return []
    return [
        f"Learned positions have {rows} rows (model.max_length), so lengths "
        f"{enumerate_words(beyond)} are missing for them."
    ]


def _caveat(study: LengthStudy) -> str:
    tuned = "Learning rates are the same for every encoding; each may have a better one."
    if study.seeds == 1:
        return f"{tuned} One seed is one seed: another may change small gaps, even their sign."
    return f"{tuned} Losses are means of {study.seeds} seeds, ± half the range."


def _row(study: LengthStudy, name: str) -> list[str]:
    settings = study.settings(name)
    return [
        LABELS[name],
        *(_text(setting.losses) for setting in settings),
        _text(settings[-1].beyond),
    ]


def _text(losses: Sequence[float]) -> str:
    """Return a mean and half the range of several seeds; a dash where there is none."""
    if not losses:
        return "-"
    spread = f" ± {half_range(losses):.3f}" if len(losses) > 1 else ""
    return f"{fmean(losses):.3f}{spread}"
