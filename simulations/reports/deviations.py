"""The figure of deviations from a teacher, and what they say in words."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fedsi.inference.deviations import Deviations, LogOdds
from simulations.reports.figures import STYLE
from simulations.safe_text import for_figure

_COLOURS = ("#1f5fa8", "#c8500a")
_MOST_POINTS = 2000


def deviations_figure(teacher: LogOdds, models: Mapping[str, tuple[LogOdds, Deviations]]) -> Figure:
    """Draw each model's log odds over the teacher's, with the diagonal and the fitted line."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(models), 4.4), layout="constrained")
        panels = figure.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
        ends = np.array([teacher.min(), teacher.max()])
        shown = np.linspace(0, len(teacher) - 1, min(len(teacher), _MOST_POINTS)).astype(np.int64)
        for axes, colour, (name, (odds, found)) in zip(
            panels, _COLOURS, models.items(), strict=False
        ):
            axes.plot(teacher[shown], odds[shown], ".", ms=2, color=colour, alpha=0.35)
            axes.plot(ends, ends, color="#666666", lw=1, ls="--", label="diagonal")
            line = found.slope * ends + found.intercept
            axes.plot(ends, line, color=colour, lw=1.5, label=f"slope {found.slope:.2f}")
            axes.set(title=for_figure(name), xlabel="log odds under the teacher")
            axes.legend(loc="upper left")
        panels[0].set_ylabel("log odds of the teacher's word under the model")
    return figure


def deviation_sentences(student: Deviations, control: Deviations | None) -> list[str]:
    """Return what the deviations show, against those of an independent model."""
    if control is None:
        return [
            "Without --control, an independent model trained without the teacher, neither the "
            "slope nor the share below the diagonal is evidence of distillation."
        ]
    steeper = "more" if student.slope > control.slope else "not more"
    exaggerates = "above 1" if student.slope > 1 else "not above 1"
    lower = "larger" if student.below > control.below else "not larger"
    return [
        f"The student's slope, {student.slope:.2f}, is {exaggerates}, and {steeper} than the "
        f"control's, {control.slope:.2f}.",
        f"In the teacher's least confident quarter {student.below:.2f} of the positions lie below "
        f"the diagonal, a share {lower} than the control's, {control.below:.2f}.",
    ]
