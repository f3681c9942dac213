"""The panel of differences between arms over rounds, on fabricated studies."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from simulations.reports.difference_panel import differences_over_rounds
from simulations.reports.study import study_report
from simulations.reports.study_figure import study_figure
from simulations.studies.results import StudyResult, TrialResult
from simulations.studies.statistics import t_interval
from simulations.studies.study import Study
from tests.simulations.reports.test_study import comparison
from tests.simulations.studies.fabricated import study_result

ARMS = {
    "name": "arm",
    "label": "",
    "values": ["plain", "other"],
    "changes": [{"model.hidden_size": 8}, {"model.hidden_size": 9}],
}
CIFG, SI_CIFG = [5.0, 5.2, 5.1], [4.9, 5.4, 5.2]


def study_of(
    first: Sequence[float | None] = CIFG, second: Sequence[float | None] = SI_CIFG
) -> StudyResult:
    """Return a study of two arms, evaluated after rounds 1 (both 6.5) and 2."""
    study = Study(axes=[ARMS], compare=["arm"], seeds=len(first))
    return study_result(study, {("plain",): first, ("other",): second})


def without_round(result: TrialResult, number: int) -> TrialResult:
    return replace(result, records=[one for one in result.records if one.round != number])


def test_differences_are_paired_by_seed_and_round() -> None:
    ((place, curve),) = differences_over_rounds(study_of()).items()
    assert [point.value for point in place.arm] == ["other"]
    expected = t_interval([b - a for a, b in zip(CIFG, SI_CIFG, strict=True)])
    assert curve[1].estimate == 0
    assert curve[2] == expected


def test_seeds_that_one_arm_lacks_are_left_out() -> None:
    whole = study_of()
    part = [one for one in whole.results if one.name != "other-seed1"]
    ((_, curve),) = differences_over_rounds(replace(whole, results=part)).items()
    assert curve[2].estimate == pytest.approx(0.0)
    assert not curve[2].low > -math.inf, "two seeds allow no interval"


@pytest.mark.parametrize(
    ("first", "second"),
    [(CIFG, [4.9, 5.1, None]), ([5.0, None, 5.1], SI_CIFG), ([*CIFG, None], [*SI_CIFG, 5.0])],
)
def test_an_arm_of_which_a_seed_diverged_has_no_differences(
    first: Sequence[float | None], second: Sequence[float | None]
) -> None:
    found = study_of(first, second)
    assert differences_over_rounds(found) == {}
    assert "second panel" not in study_report(found, {}).caption


def test_a_round_that_a_run_was_not_evaluated_after_has_no_difference() -> None:
    result = study_of()
    part = [without_round(one, 2) if one.trial.seed == 1 else one for one in result.results]
    assert differences_over_rounds(replace(result, results=part)) == {}


def test_the_panel_shows_them_and_the_caption_says_so() -> None:
    result = study_of()
    _, panel = study_figure(result).axes
    (curve,) = [line for line in panel.get_lines() if line.get_marker() == "o"]
    assert list(np.asarray(curve.get_xdata())) == [1, 2]
    change = float(np.mean(np.subtract(SI_CIFG, CIFG)))
    assert list(np.asarray(curve.get_ydata())) == pytest.approx([0.0, change])
    assert panel.get_title() == "Minus plain"
    caption = study_report(result, {}).caption
    assert "the difference to plain within a seed" in caption
    assert "Arms of which a seed diverged are not in it." in caption


@pytest.mark.parametrize("seeds", [2, 3])
def test_a_band_needs_three_seeds(seeds: int) -> None:
    _, panel = study_figure(study_of(CIFG[:seeds], SI_CIFG[:seeds])).axes
    assert len(panel.collections) == (seeds >= 3)


@pytest.mark.parametrize("seeds", [2, 3])
def test_beside_a_tuned_axis_the_panel_needs_three_seeds(seeds: int) -> None:
    result = comparison(seeds)
    titles = [axes.get_title() for axes in study_figure(result).axes]
    apart = ["Minus CIFG"] if seeds >= 3 else []
    assert titles == ["Rounds, chosen settings", *apart, "Final loss by client lr"]
    assert ("The second panel" in study_report(result, {}).caption) == (seeds >= 3)


def test_without_a_second_arm_there_is_no_panel() -> None:
    study = Study(axes=[{**ARMS, "values": ["plain"], "changes": ARMS["changes"][:1]}], seeds=2)
    result = study_result(study, {("plain",): CIFG[:2]})
    assert differences_over_rounds(result) == {}
    assert len(study_figure(result).axes) == 1
