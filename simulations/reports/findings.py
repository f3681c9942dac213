"""What a comparison found, in sentences and in a table, computed from its results alone."""

import math
from collections.abc import Mapping, Sequence

from server.runs.summary import Summary
from simulations.reports.figures import label
from simulations.studies.compare import Comparison
from simulations.studies.grid import ACCURACY, Setting, Study

NO_RUN = "not finished"
"""What stands in tables where no run of a setting finished."""


def findings(comparison: Comparison) -> list[str]:
    """Return sentences that say what this comparison found, and nothing more."""
    return [
        design(comparison),
        *(_architecture(comparison, name) for name in comparison.architectures),
        *_lead(comparison),
        *no_better_than_counting(
            {
                f"{label(setting.architecture)} at {setting.value:g}": setting.loss
                for name in comparison.architectures
                for setting in comparison.settings(name)
            },
            comparison.summary.unigram_loss,
        ),
        _caveat(comparison),
    ]


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the comparison's table, as text.

    A row is an architecture: its best of the grid, then its loss at every learning rate.
    """
    rates = [f"at lr {rate:g}" for rate in comparison.values]
    header = ["", "best lr", "loss", "word accuracy", *rates]
    rows = []
    for name in comparison.architectures:
        best = comparison.best(name)
        settings = comparison.settings(name)
        row = [label(name)]
        if best:
            row += [
                f"{best.value:g}",
                loss_text(best),
                f"{best.mean(ACCURACY):.3f}",
            ]
        else:
            row += ["none", "diverged" if any(s.diverged for s in settings) else NO_RUN, ""]
        rows.append([*row, *(loss_text(setting) for setting in settings)])
    return header, rows


def loss_text(setting: Setting) -> str:
    """Return a setting's mean loss, with half the range of several seeds, or why there is none."""
    seeds = len(setting.results)
    if not seeds:
        return NO_RUN
    if setting.diverged:
        return "diverged" if seeds == 1 else f"diverged {setting.diverged} of {seeds}"
    return f"{setting.loss:.3f}" + (f" ± {setting.half_range:.3f}" if seeds > 1 else "")


def design(study: Study) -> str:
    """Say which texts a study used."""
    summary = study.summary
    return (
        f"Corpus {summary.corpus} (SHA-256 {summary.corpus_sha256[:16]}): "
        f"{summary.training_clients:,} training clients, {summary.heldout_clients:,} held "
        f"out; on those evaluated {unigram_words(summary)}."
    )


def unigram_words(summary: Summary) -> str:
    """Say what a model that only counts words has as loss."""
    if summary.unigram_loss is None:
        return "a unigram model has no loss"
    return f"a unigram model has a loss of {summary.unigram_loss:.3f}"


def _architecture(comparison: Comparison, name: str) -> str:
    settings = comparison.settings(name)
    diverged = [f"{s.value:g}" for s in settings if s.diverged]
    unstable = (
        f"; it diverged at {enumerate_words(diverged)}" if diverged else "; it never diverged"
    )
    best = comparison.best(name)
    if best is None and len(diverged) < len(settings):
        return f"{label(name)} has no loss: no run finished that did not diverge."
    if best is None:
        return f"{label(name)} diverged at every client learning rate tried."
    return (
        f"{label(name)} was best at client learning rate {best.value:g}, with a "
        f"held-out loss of {loss_text(best)}{unstable}."
    )


def _lead(comparison: Comparison) -> list[str]:
    """Compare the first two architectures at equal learning rates and at their best."""
    if len(comparison.architectures) != 2:
        return []
    one, two = comparison.architectures
    sentences = []
    shared = [
        (a, b)
        for a, b in zip(comparison.settings(one), comparison.settings(two), strict=True)
        if a.measured and b.measured
    ]
    gaps = [
        f"{label(two if b.loss < a.loss else one)} by {abs(a.loss - b.loss):.3f} at {a.value:g}"
        for a, b in shared
    ]
    if gaps:
        sentences.append(f"Lower loss at the same client learning rate: {enumerate_words(gaps)}.")
    first, second = comparison.best(one), comparison.best(two)
    if first and second:
        lower = one if first.loss < second.loss else two
        gap = abs(first.loss - second.loss)
        sentences.append(f"Best against best, {label(lower)} is lower by {gap:.3f}.")
    return sentences


def _caveat(comparison: Comparison) -> str:
    chosen = "The best learning rates were chosen on the same held-out clients."
    return f"{chosen} {seeds_caveat(comparison)}"


def seeds_caveat(study: Study) -> str:
    """Say how far the numbers of a study are from a mean over all seeds."""
    if study.seeds == 1:
        return "One seed is one seed: another may change small gaps, even their sign."
    return f"Losses are means of {study.seeds} seeds, ± half the range."


def no_better_than_counting(losses: Mapping[str, float], unigram_loss: float | None) -> list[str]:
    """Name those that are worse than counting words, but have not diverged, if there are any."""
    least = math.inf if unigram_loss is None else unigram_loss
    worse = [name for name, loss in losses.items() if least <= loss < math.inf]
    if not worse:
        return []
    return [f"No better than the unigram model, so without use: {enumerate_words(worse)}."]


def enumerate_words(items: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"; not of nothing."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]
