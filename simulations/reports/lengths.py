"""Reports of a study that evaluates its models at several sequence lengths."""

from collections.abc import Sequence
from statistics import fmean

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.reports.figures import STYLE
from simulations.reports.study_legend import line_of, study_legend
from simulations.reports.study_words import enumerate_words, mean_text, place_words, words
from simulations.safe_text import for_markdown
from simulations.studies.results import GridPoint, StudyResult
from simulations.studies.statistics import t_interval

PACKING = (
    "Each length has the same targets: a client's sentences are packed whole, one after the other, "
    "into sequences of that length, so a longer sequence adds earlier sentences."
)


def losses_at(
    result: StudyResult, place: GridPoint, length: int, *, beyond: bool = False
) -> list[float]:
    """Return the loss of each seed of a place's chosen setting at a sequence length.

    Args:
        result: The study's results.
        place: An arm at a level.
        length: One of the study's lengths.
        beyond: Whether to use only positions beyond those of training.

    Returns:
        Empty if the models cannot read that length, or all of them diverged.
    """
    found = []
    for one in result.all_seeds(place):
        score = one.measured.lengths.get(length) if one.measured else None
        if beyond and score:
            score = score["beyond"]
        if score and score["loss"] is not None:
            found.append(float(score["loss"]))
    return found


def lengths_table(result: StudyResult) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the table by length, as text."""
    lengths = sorted(result.study.lengths)
    header = ["", *(f"length {length}" for length in lengths), "beyond at the longest"]
    rows = [
        [
            place_words(place),
            *(mean_text(losses_at(result, place, length)) for length in lengths),
            mean_text(losses_at(result, place, lengths[-1], beyond=True)),
        ]
        for place in result.places
    ]
    return header, rows


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
            _curve(whole, result, place, [(n, losses_at(result, place, n)) for n in lengths])
            points = [(n, losses_at(result, place, n, beyond=True)) for n in lengths]
            _curve(beyond, result, place, points)
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
    losses = [(n, losses_at(result, place, n)) for n in sorted(result.study.lengths)]
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
    """Compare each arm at the longest length with the first arm that can read it."""
    longest = max(result.study.lengths)
    places = [p for p in result.places if len(losses_at(result, p, longest)) >= 3]
    told = []
    for place in places[1:]:
        losses = losses_at(result, place, longest), losses_at(result, places[0], longest)
        if len(losses[0]) != len(losses[1]):
            continue
        found = t_interval([a - b for a, b in zip(*losses, strict=True)])
        numbers = f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}] nats"
        names = words(place.arm), words(places[0].arm)
        if found.holds_zero:
            both = " and ".join(names)
            told.append(f"At {longest} no difference shown between {both}: {numbers}.")
        else:
            lower = "lower" if found.estimate < 0 else "higher"
            told.append(f"At {longest} {names[0]} has a {lower} loss than {names[1]}: {numbers}.")
    return told


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
