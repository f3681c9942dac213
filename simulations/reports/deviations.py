"""The figure of deviations from a teacher, and what they say in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedsi.inference.deviations import Deviations, LogOdds
from simulations.reports.figures import STYLE
from simulations.reports.study_words import interval_text
from simulations.studies.statistics import FEWEST_SEEDS, Interval, t_interval

_COLOURS = ("#1f5fa8", "#c8500a")
_MOST_POINTS = 2000
_NO_CONTROL = (
    "Without --control, an independent model trained without the teacher, neither the slope nor "
    "the share below the diagonal is evidence of distillation."
)


@dataclass(frozen=True)
class Compared:
    """One run against the teacher."""

    name: str
    seed: int
    odds: LogOdds
    """Log odds of the teacher's words under its model, ``[positions]``."""
    found: Deviations


Kinds = Mapping[str, Sequence[Compared]]
"""The runs by their kind: ``student`` and, if there are any, ``control``."""


def deviations_figure(teacher: LogOdds, kinds: Kinds) -> Figure:
    """Draw the log odds of each kind's first run over the teacher's, and the lines of all runs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(kinds), 4.4), layout="constrained")
        panels = figure.subplots(1, len(kinds), squeeze=False, sharex=True, sharey=True)[0]
        for axes, colour, (kind, runs) in zip(panels, _COLOURS, kinds.items(), strict=False):
            _panel(axes, teacher, runs, colour)
            seeds = f", {len(runs)} seeds" if len(runs) > 1 else ""
            axes.set(title=f"{kind}{seeds}", xlabel="log odds under the teacher")
            axes.legend(loc="upper left")
        panels[0].set_ylabel("log odds of the teacher's word under the model")
    return figure


def _panel(axes: Axes, teacher: LogOdds, runs: Sequence[Compared], colour: str) -> None:
    ends = np.array([teacher.min(), teacher.max()])
    shown = np.linspace(0, len(teacher) - 1, min(len(teacher), _MOST_POINTS)).astype(np.int64)
    axes.plot(teacher[shown], runs[0].odds[shown], ".", ms=2, color=colour, alpha=0.35)
    axes.plot(ends, ends, color="#666666", lw=1, ls="--", label="diagonal")
    for run in runs:
        line, slope = run.found.slope * ends + run.found.intercept, f"slope {run.found.slope:.2f}"
        axes.plot(ends, line, color=colour, lw=1.5, label=slope)


def deviation_sentences(students: Sequence[Compared], controls: Sequence[Compared]) -> list[str]:
    """Return what the deviations show, against those of independent models.

    From ``FEWEST_SEEDS`` pairs of equal seeds on it is said whether the paper's two signs are
    reproduced.
    """
    if not controls:
        return [_NO_CONTROL]
    of_seed = {run.seed: run.found for run in controls}
    pairs = [(run.found, of_seed[run.seed]) for run in students if run.seed in of_seed]
    if len(pairs) < FEWEST_SEEDS:
        return [
            *_of_one(students[0].found, controls[0].found),
            f"No claim: {len(pairs)} pairs of a student and a control with the same seed, and at "
            f"least {FEWEST_SEEDS} are needed.",
        ]
    return [
        _sign("A slope above 1", "slope", 1.0, pairs),
        _sign(
            "Still less confidence in the teacher's least confident quarter of the positions, a "
            "share below the diagonal above 0.5",
            "below",
            0.5,
            pairs,
        ),
        "A sign is reproduced if the interval of the students lies above that number, and the "
        f"interval of student minus control above 0 (95 %, t over {len(pairs)} seeds).",
    ]


def _of_one(student: Deviations, control: Deviations) -> list[str]:
    steeper = "more" if student.slope > control.slope else "not more"
    exaggerates = "above 1" if student.slope > 1 else "not above 1"
    lower = "larger" if student.below > control.below else "not larger"
    return [
        f"The student's slope, {student.slope:.2f}, is {exaggerates}, and {steeper} than the "
        f"control's, {control.slope:.2f}.",
        f"In the teacher's least confident quarter {student.below:.2f} of the positions lie below "
        f"the diagonal, a share {lower} than the control's, {control.below:.2f}.",
    ]


def _sign(
    called: str, quantity: str, limit: float, pairs: Sequence[tuple[Deviations, Deviations]]
) -> str:
    values = [(getattr(one, quantity), getattr(other, quantity)) for one, other in pairs]
    own = t_interval([one for one, _ in values])
    between = t_interval([one - other for one, other in values])
    told = "reproduced" if own.low > limit and between.low > 0 else _missed(own, between, limit)
    return (
        f"{called}: {told}. Students {_interval(own)}, student minus control "
        f"{interval_text(between)}."
    )


def _missed(own: Interval, between: Interval, limit: float) -> str:
    """Say whether the opposite of a sign is shown, or nothing."""
    return "not reproduced" if own.high < limit or between.high < 0 else "not shown"


def _interval(found: Interval) -> str:
    return f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]"
