"""What deviations from a teacher show, over seeds: constructed cases."""

from collections.abc import Sequence

import numpy as np

from fedsi.inference.deviations import deviations_of
from simulations.reports.deviations import Compared, deviation_sentences, deviations_figure

TEACHER = np.linspace(-3, 5, 200)


def runs(slopes: Sequence[float], shift: float = 0.0) -> list[Compared]:
    """Return a run for each seed whose log odds lie on a line, lower by ``shift``."""
    lines = [slope * TEACHER - shift for slope in slopes]
    return [
        Compared(f"run{seed}", seed, odds, deviations_of(TEACHER, odds))
        for seed, odds in enumerate(lines)
    ]


def test_a_sign_is_reproduced_only_beyond_the_limit_and_the_controls() -> None:
    steep, flat = runs([1.3, 1.32, 1.28]), runs([0.7, 0.72, 0.68])
    first, second, meaning = deviation_sentences(steep, flat)
    assert first == (
        "A slope above 1: reproduced. Students 1.300 [1.250, 1.350], student minus control "
        "+0.600 [+0.600, +0.600]."
    )
    # Below 0 the steep lines lie below the diagonal and the flat ones above it.
    assert "above 0.5: reproduced. Students 1.000 [1.000, 1.000]" in second
    assert "t over 3 seeds" in meaning
    # Planted: the same slopes in models that never saw the teacher.
    alike = deviation_sentences(steep, runs([1.25, 1.37, 1.28]))
    assert alike[0].startswith("A slope above 1: not shown.")
    assert deviation_sentences(flat, steep)[0].startswith("A slope above 1: not reproduced.")


def test_fewer_than_three_pairs_allow_no_claim() -> None:
    told = deviation_sentences(runs([1.3, 1.3, 1.3]), runs([0.7, 0.7]))
    assert told[-1].startswith("No claim: 2 pairs of a student and a control with the same seed")
    assert "Without --control" in deviation_sentences(runs([1.3]), [])[0]


def test_the_figure_has_a_panel_for_each_kind_and_a_line_for_each_seed() -> None:
    figure = deviations_figure(TEACHER, {"student": runs([1.3, 1.2]), "control": runs([0.7])})
    student, control = figure.axes
    assert student.get_title() == "student, 2 seeds"
    assert len(student.lines) == len(control.lines) + 1 == 4
