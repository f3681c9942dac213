"""Successive halving on results that never ran."""

from dataclasses import replace

import pytest

from simulations.reports.findings import findings
from simulations.reports.marks import ngram_losses
from simulations.reports.study import study_report
from simulations.studies.gaps import area_by_rate
from simulations.studies.halving import best_combinations, last_stages, shorter_runs
from simulations.studies.results import StudyResult, TrialResult
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import result, study_result

STUDY = Study(
    axes=[
        {"key": "model.architecture", "values": ["cifg", "si_cifg"]},
        {"key": "client.learning_rate", "values": [0.1, 1.0, 10.0]},
    ],
    compare=["model.architecture"], tune=["client.learning_rate"], design="halving",
    first_rounds=10, finalists=1, final_seeds=3,
    experiment={"server": {"rounds": 30}},
)  # fmt: skip
LOSSES: dict[tuple[object, ...], float | None] = {
    ("cifg", 0.1): 5.0, ("cifg", 1.0): 4.5, ("cifg", 10.0): None,
    ("si_cifg", 0.1): 6.1, ("si_cifg", 1.0): 5.9, ("si_cifg", 10.0): 5.8,
}  # fmt: skip
"""Every CIFG is better than every SI-CIFG after few rounds; None diverged."""


def stage(number: int) -> list[TrialResult]:
    """Return the results of a stage, all with the losses above."""
    asked = STUDY.stages()[number]
    return [
        result(STUDY.trial(points, seed, asked.rounds), LOSSES[points[0].value, points[1].value])
        for points in STUDY.combinations()
        for seed in asked.seeds
    ]


def values(results: list[TrialResult]) -> set[tuple[object, ...]]:
    """Return what identifies each result."""
    return {(*(p.value for p in r.trial.points), r.trial.rounds, r.trial.seed) for r in results}


def test_arms_are_not_held_against_each_other() -> None:
    short = StudyResult(STUDY, stage(0))
    kept = best_combinations(short, STUDY.combinations(), 1)
    assert [tuple(p.value for p in one) for one in kept] == [("cifg", 1.0), ("si_cifg", 10.0)]
    two = best_combinations(short, STUDY.combinations(), 3)
    assert ("cifg", 10.0) not in [tuple(p.value for p in one) for one in two]


def test_combinations_go_on_by_means_over_equal_seeds() -> None:
    """Rate .1 is worse at every seed, and lacks the hard one."""
    study = STUDY.updated(seeds=2)
    results = [
        result(study.trial(points, seed, 10), {0.1: 5.05, 1.0: 5.0, 10.0: 5.3}[rate] + 0.6 * seed)
        for points in study.combinations()
        for seed in (0, 1)
        if (rate := float(points[1].value)) != 0.1 or seed == 0
    ]
    short = StudyResult(study, results)
    kept = best_combinations(short, study.combinations(), 1)
    assert [points[1].value for points in kept] == [1.0, 1.0]
    (told,) = (one for one in findings(short) if one.startswith("Left out of the choice"))
    assert "CIFG with client lr 0.1 after 10 rounds (1 of 2 seeds)" in told


@pytest.mark.parametrize(
    ("kept", "told"),
    [((1.0,), 1), ((0.1, 1.0), 0), ((0.1,), 0), ((1.0, 10.0), 1)],
)
def test_the_page_says_where_smaller_rates_were_stopped_early(
    kept: tuple[float, ...], told: int
) -> None:
    short, final = stage(0), stage(1)
    of_cifg = [r for r in final if r.trial.points[0].value == "cifg"]
    found = last_stages([short, [r for r in of_cifg if r.trial.points[1].value in kept]])
    said = [one for one in findings(StudyResult(STUDY, found)) if "ran for all rounds" in one]
    assert len(said) == told
    expected = "No smaller client lr than the best one ran for all rounds for CIFG. Short runs"
    assert all(one.startswith(expected) for one in said)


def test_a_finalist_has_no_result_of_the_seed_that_it_was_chosen_on() -> None:
    short, final = stage(0), stage(1)
    finalists = [r for r in final if r.trial.points[1].value == 1.0 and r.trial.seed != 3]
    found = last_stages([short, finalists])
    assert values(found) == {
        *((arm, rate, 10, 0) for arm in ("cifg", "si_cifg") for rate in (0.1, 10.0)),
        *((arm, 1.0, None, seed) for arm in ("cifg", "si_cifg") for seed in (1, 2)),
    }
    whole = StudyResult(STUDY, found, shorter=shorter_runs([short, finalists], found))
    assert values(list(whole.shorter)) == {(arm, 1.0, 10, 0) for arm in ("cifg", "si_cifg")}
    assert len(whole.table()) == len(short) + len(finalists)
    assert whole.seeds == 2
    assert len(whole._runs()) == 6 + 2 * 3
    chosen = whole.chosen(whole.places[1])
    assert chosen
    assert chosen.points[1].value == 1.0  # 10.0 is better, but was not run to the end


def test_rates_are_held_against_each_other_after_equal_rounds() -> None:
    short = stage(0)
    finalists = [r for r in stage(1) if r.trial.points[1].value == 1.0]
    found = last_stages([short, finalists])
    baselines = study_result(STUDY, {}).baselines
    only_last = StudyResult(STUDY, found, baselines)
    whole = replace(only_last, shorter=shorter_runs([short, finalists], found))
    for place, expected in zip(whole.places, ((5.0, 4.5, 6.0), (6.0, 5.9, 5.8)), strict=True):
        # A run that diverged or is worse than the unigram model, 6.0, counts as that.
        (area,) = area_by_rate(whole, place).values()
        assert area == pytest.approx((expected[0] / 2 + expected[1] + expected[2] / 2) / 2)
    report = study_report(whole, {})
    assert [axes.get_title() for axes in report.figure.axes][-1] == (
        "Loss after 10 rounds by client lr"
    )
    assert any("After 10 rounds, mean loss over" in one for one in report.findings)


def test_nothing_is_chosen_before_a_setting_has_run_to_the_end() -> None:
    report = study_report(StudyResult(STUDY, stage(0), study_result(STUDY, {}).baselines), {})
    assert [row[2] for row in report.rows[:2]] == ["not finished", "not finished"]
    yet = "SI-CIFG has no loss yet: no run of all rounds has finished."
    assert yet in report.findings
    assert not any(line.get_label() == "cifg" for line in report.figure.axes[0].lines)
    assert len(report.figure.axes[0].lines) == len(ngram_losses(study_result(STUDY, {}).baselines))
