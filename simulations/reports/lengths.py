"""Reports of a study that evaluates its models at several sequence lengths."""

import math
from collections.abc import Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports.figures import STYLE
from simulations.reports.study_legend import line_of, study_legend
from simulations.reports.study_words import (
    enumerate_words,
    mean_of_seeds_text,
    mean_text,
    place_words,
)
from simulations.reports.verdicts import (
    no_claim_about,
    no_loss,
    too_many_without_claim,
    verdict_sentence,
)
from simulations.safe_text import for_markdown
from simulations.studies.gaps import Gap, Verdict, verdict_of
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.statistics import claim_interval

PACKING = (
    "Each length has the same targets: a client's sentences are packed whole, one after the other, "
    "into sequences of that length, so a longer sequence adds earlier sentences."
)


def losses_at(
    result: StudyResult, place: GridPoint, length: int, *, beyond: bool = False
) -> dict[int, float]:
    """Return the losses of a place's chosen setting at a sequence length, by seed.

    They are those of all evaluated clients.

    Args:
        result: The study's results.
        place: An arm at a level.
        length: One of the study's lengths.
        beyond: Whether to use only positions beyond those of training.

    Returns:
        Without the seeds that diverged; empty if the models cannot read that length.
    """
    found = {}
    for one in result.all_seeds(place):
        score = one.measured.lengths.get(length) if one.measured else None
        if beyond and score:
            score = score["beyond"]
        if score and score["loss"] is not None:
            found[one.trial.seed] = float(score["loss"])
    return found


def lengths_table(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table by length, as text."""
    lengths = sorted(result.study.lengths)
    header = ["", *(f"length {length}" for length in lengths), "beyond at the longest"]
    rows = [
        [
            place_words(place),
            *(_mean_at(result, place, length) for length in lengths),
            _mean_at(result, place, lengths[-1], beyond=True),
        ]
        for place in result.places
    ]
    return header, rows


def _mean_at(result: StudyResult, place: GridPoint, length: int, *, beyond: bool = False) -> str:
    losses = [*losses_at(result, place, length, beyond=beyond).values()]
    return mean_of_seeds_text(losses, len(result.all_seeds(place)))


def lengths_markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[str]],
             findings: Sequence[str]) -> str:  # fmt: skip
    """Return a table and findings in Markdown."""
    lines = ["| " + " | ".join(map(for_markdown, row)) + " |"
             for row in (header, ["---"] * len(header), *rows)]  # fmt: skip
    told = [f"* {for_markdown(sentence)}" for sentence in findings]
    return "\n".join([f"# {for_markdown(title)}", "", *lines, "", *told, ""])


def lengths_figure(result: StudyResult) -> Figure:
    """Draw loss against length, over all targets and over those beyond the training length."""
    lengths, trained = sorted(result.study.lengths), _trained(result)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        whole, beyond = figure.subplots(1, 2)
        for place in result.places:
            for axes, further in ((whole, False), (beyond, True)):
                losses = [(n, losses_at(result, place, n, beyond=further)) for n in lengths]
                _curve(axes, result, place, [(n, [*found.values()]) for n, found in losses])
        whole.set(ylabel="held-out loss (nats per token)", title="All targets")
        beyond.set(title=f"At positions beyond {trained}")
        for axes in (whole, beyond):
            axes.axvline(trained, color="#bbbbbb", linestyle="--", linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(lengths, [str(length) for length in lengths])
            axes.minorticks_off()
            axes.set_xlabel("sequence length (dashed: training length)")
        study_legend(figure, result, below=False)
    return figure


def lengths_findings(result: StudyResult) -> list[str]:
    """Return sentences on how losses change with the length."""
    return [
        PACKING,
        *(_change(result, place) for place in result.places),
        *length_verdicts(result),
        *_unreadable(result),
    ]


def _trained(result: StudyResult) -> int:
    """Return the positions of a sequence in training."""
    return result.study.experiment.data.sequence_length


def _curve(
    axes: Axes, result: StudyResult, place: GridPoint, points: Sequence[tuple[int, Sequence[float]]]
) -> None:
    points = [(length, losses) for length, losses in points if losses]
    if not points:
        return
    lengths = [length for length, _ in points]
    colour, style = line_of(result, place)
    means = [fmean(losses) for _, losses in points]
    axes.plot(lengths, means, color=colour, linestyle=style, marker="o", ms=3)
    low, high = ([one(losses) for _, losses in points] for one in (min, max))
    axes.fill_between(
        lengths, low, high, facecolor=(colour, 0.12), edgecolor=(colour, 0.7), linewidth=0.7
    )


def _change(result: StudyResult, place: GridPoint) -> str:
    """Describe the change of a place's loss from its shortest readable length to its longest."""
    losses = [(n, [*losses_at(result, place, n).values()]) for n in sorted(result.study.lengths)]
    known = [(length, found) for length, found in losses if found]
    runs = result.all_seeds(place)
    diverged = sum(one.diverged for one in runs)
    spoiled = f" ({diverged} of {len(runs)} seeds diverged)" if diverged else ""
    name = place_words(place)
    if not known:
        return f"{name}: no loss at any of these lengths{spoiled}."
    (shortest, first), (longest, last) = known[0], known[-1]
    if shortest == longest:
        return f"{name}: {mean_text(first)} at {shortest}{spoiled}."
    change = fmean(last) - fmean(first)
    return (
        f"{name}: {mean_text(first)} at {shortest}, {mean_text(last)} at {longest}, a change of "
        f"{change:+.3f}{spoiled}."
    )


def length_verdicts(result: StudyResult) -> list[str]:
    """Compare the arms and the levels at the longest length, and say on which clients."""
    longest, pairs = max(result.study.lengths), length_pairs(result)
    if pairs and too_many_without_claim(result):
        told = [no_claim_about(len(pairs), result)]
    else:
        told = [
            _sentence(_gap(result, one, other), place_words(one), place_words(other))
            for one, other in pairs
        ]
    told = [f"n{one[1:]}" if one.startswith("No ") else one for one in told]
    return [*(f"At {longest} {sentence}" for sentence in told), *_on_whom(result)]


def _sentence(found: Gap, first: str, second: str) -> str:
    if found.verdict is Verdict.NOT_MEASURED:
        return no_loss(first, second)
    return verdict_sentence(first, second, found, {})


def length_pairs(result: StudyResult) -> list[tuple[GridPoint, GridPoint]]:
    """Return the pairs of places that are compared at the longest length; none without lengths.

    At each level every arm is compared with the first one that can read that length, and for each
    arm every level with the first one at which it can.
    """
    readable = [place for place in result.places if _reads_longest(result, place)]
    return [
        (place, first)
        for place in readable
        for first in (
            next(one for one in readable if one.level == place.level),
            next(one for one in readable if one.arm == place.arm),
        )
        if first != place
    ]


def _reads_longest(result: StudyResult, place: GridPoint) -> bool:
    """Whether a place's models read the longest length, as far as that is known."""
    if not result.study.lengths:
        return False
    longest = max(result.study.lengths)
    trained = [one.measured for one in result.all_seeds(place) if one.measured]
    return not trained or any(one.lengths.get(longest) for one in trained)


def _gap(result: StudyResult, first: GridPoint, second: GridPoint) -> Gap:
    """Return the difference of two places at the longest length, over the seeds that both have."""
    longest, places = max(result.study.lengths), (first, second)
    one, other = (losses_at(result, place, longest) for place in places)
    seeds = sorted(one.keys() & other.keys())
    if not seeds or [len(one), len(other)] != [len(result.all_seeds(place)) for place in places]:
        return Gap(Verdict.NOT_MEASURED, "loss", {}, {})
    between = claim_interval([one[seed] - other[seed] for seed in seeds])
    worse = max(fmean(one.values()), fmean(other.values()))
    verdict = verdict_of(between, len(seeds), useless=worse >= _unigram(result))
    return Gap(verdict, "loss", {"loss": between}, {seed: {} for seed in seeds})


def _unigram(result: StudyResult) -> float:
    """Return the unigram model's loss on all evaluated clients; infinite without one."""
    ngrams = result.baselines
    return math.inf if ngrams is None or ngrams.ranks_labels else ngrams.loss("unigram")


def _on_whom(result: StudyResult) -> list[str]:
    """Say on which clients the losses by length are, if the others are on test clients."""
    measured = next((one.measured for one in result.results if one.measured), None)
    if not result.chooses or measured is None:
        return []
    chosen_on = len(measured.test) - int(measured.test.sum())
    return [
        f"Losses by length are over all {len(measured.test)} evaluated clients, also the "
        f"{chosen_on} on which the best settings were chosen."
    ]


def _unreadable(result: StudyResult) -> list[str]:
    rows = result.study.experiment.model.max_length
    beyond = [str(length) for length in sorted(result.study.lengths) if length > rows]
    learned = any(point.value == "learned" for place in result.places for point in place.arm)
    if not learned or not beyond:
        return []
    return [
        f"Learned positions have {rows} rows (model.max_length), so lengths "
        f"{enumerate_words(beyond)} are missing for them."
    ]
