"""Verdicts follow from intervals: a constructed case for each."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from simulations.reports.findings import findings, headlines
from simulations.studies.gaps import (
    Verdict,
    area_by_rate,
    gap_between,
    holm_p_values,
    pairs,
    rounds_to_target,
    verdict_of,
)
from simulations.studies.measured import Measured
from simulations.studies.results import StudyResult
from simulations.studies.statistics import Interval
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import result, study_result

ARMS = {"key": "model.architecture", "values": ["cifg", "si_cifg"], "label": ""}
RATES = {"key": "client.learning_rate", "values": [0.3, 1.0, 3.0], "label": "lr"}


def two_arms(first: Sequence[float | None], second: Sequence[float | None]) -> StudyResult:
    """Return a study of two architectures without anything to tune."""
    study = Study(axes=[ARMS], compare=["model.architecture"], seeds=5)
    return study_result(study, {("cifg",): first, ("si_cifg",): second})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([5.0, 5.1, 5.2], [4.9, 5.0, 5.11], Verdict.LOWER),
        ([5.0, 5.1, 5.2], [5.1, 5.2, 5.31], Verdict.HIGHER),
        ([5.0, 5.1, 5.2], [4.9, 5.3, 5.1], Verdict.NONE_SHOWN),
        ([5.0, 5.1], [4.0, 4.1], Verdict.FEW_SEEDS),
        ([5.0], [4.0], Verdict.FEW_SEEDS),
        ([5.0, 5.1, 5.2], [6.0, 6.1, 6.2], Verdict.USELESS),
        ([7.0, 7.1, 7.2], [6.0, 6.1, 6.2], Verdict.USELESS),
        ([5.0, 5.1, 5.2], [4.0, None, 4.0], Verdict.NOT_MEASURED),
        ([5.0, 5.1, 5.2], [], Verdict.NOT_MEASURED),
    ],
)
def test_planted_verdicts(
    first: Sequence[float | None], second: Sequence[float | None], expected: Verdict
) -> None:
    found = two_arms(first, second)
    ((one, other),) = pairs(found)
    assert one.arm[0].value == "si_cifg"
    assert gap_between(found, one, other).verdict is expected


def three_arms(*losses: Sequence[float]) -> StudyResult:
    """Return a study of three architectures, all compared with the first."""
    values = ["cifg", "si_cifg", "transformer"]
    study = Study(axes=[{**ARMS, "values": values}], compare=["model.architecture"], seeds=5)
    return study_result(study, {(name,): one for name, one in zip(values, losses, strict=True)})


def test_p_values_are_those_of_t_times_the_number_that_can_be_claimed() -> None:
    base, near, far = [5.0, 5.1, 5.2], [4.9, 5.02, 5.09], [4.8, 4.91, 5.0]
    found = holm_p_values(three_arms(base, near, far))
    alone = [float(stats.ttest_rel(one, base).pvalue) for one in (near, far)]
    assert alone[1] < alone[0] < 0.05, "far is corrected for two, near for one"
    assert list(found.values()) == pytest.approx([alone[0], 2 * alone[1]])
    useless = holm_p_values(three_arms(base, near, [6.0, 6.1, 6.2]))
    assert list(useless.values()) == pytest.approx([alone[0]])
    assert holm_p_values(three_arms(base[:2], near[:2], far[:2])) == {}


def test_the_caveat_names_what_is_shown_after_the_correction() -> None:
    base, apart, barely = [5.0, 5.1, 5.2], [4.8, 4.91, 5.0], [4.9, 5.05, 5.08]
    said = findings(three_arms(base, apart, [5.1, 5.0, 5.2]))[-1]
    assert "2 differences were tested, and intervals are not corrected for that." in said
    assert said.endswith("2 of them, those still shown are: SI-CIFG minus CIFG.")
    assert findings(three_arms(base, barely, barely))[-1].endswith("2 of them, none is shown.")
    assert "Holm" not in findings(two_arms(base, apart))[-1], "one difference needs no correction"
    assert "Holm" not in findings(three_arms(base[:2], apart[:2], barely[:2]))[-1]


def test_a_gap_is_paired_by_seed_and_by_client() -> None:
    # Seeds differ by 1 and clients by 2, arms by .1: only pairs show it.
    found = two_arms([4.0, 5.0, 5.8], [3.9, 4.9, 5.7])
    ((one, other),) = pairs(found)
    gap = gap_between(found, one, other)
    loss = gap.over_seeds["loss"]
    assert (loss.low, loss.estimate, loss.high) == pytest.approx((-0.1, -0.1, -0.1))
    within = gap.over_clients[1]["loss"]
    assert (within.low, within.high) == pytest.approx((-0.1, -0.1))
    assert set(gap.over_seeds) == {"loss", "accuracy_no_oov_no_eos", "recall_at_3"}
    assert gap.to_json()["verdict"] == "lower loss"


def test_a_task_decides_by_its_metric_not_by_the_loss() -> None:
    """In retrieval an arm with more first labels right is better, also at a higher loss."""
    task = {"name": "retrieval", "label_source": "words"}
    study = Study(
        experiment={"task": task, "model": {"architecture": "dual_encoder"}},
        axes=[{"key": "model.pooling", "values": ["mean", "last"]}, RATES],
        compare=["model.pooling"],
        tune=["client.learning_rate"],
        seeds=3,
    )
    results = [
        result(
            study.trial(points, seed),
            5.0 + float(points[1].value),
            accuracy=0.2 + 0.02 * float(points[1].value) + (points[0].value == "last") / 10,
        )
        for points in study.combinations()
        for seed in range(3)
    ]
    found = StudyResult(study, results)
    ((one, other),) = pairs(found)
    gap = gap_between(found, one, other)
    assert gap.verdict is Verdict.HIGHER
    assert gap.to_json()["verdict"] == "higher precision_at_1"
    chosen = found.chosen(one)
    assert chosen is not None
    assert chosen.points[1].value == 3.0, "the highest loss, and the highest precision"
    assert headlines(found)[0].startswith(
        "Pooling last has a higher precision at 1 than pooling mean: first label is right +0.100"
    )


def test_a_seed_that_one_arm_lacks_is_left_out() -> None:
    found = two_arms([5.0, 5.1, 5.2, 9.9], [4.9, 5.0, 5.1])
    ((one, other),) = pairs(found)
    assert len(gap_between(found, one, other).over_clients) == 3


def test_seeds_that_ended_with_the_same_model_allow_no_claim() -> None:
    found = two_arms([5.0, 5.0, 5.0], [4.99, 4.99, 4.99])
    same = replace(
        found,
        results=[
            replace(one, summary=replace(one.summary, model_sha256=one.summary.architecture))
            for one in found.results
        ],
    )
    ((one, other),) = pairs(found)
    assert gap_between(found, one, other).verdict is Verdict.LOWER
    gap = gap_between(same, one, other)
    assert gap.verdict is Verdict.ONE_RUN
    assert gap.to_json()["t_over_seeds"]["loss"]["low"] is None
    assert not holm_p_values(same)
    told = "No claim about SI-CIFG and CIFG: seeds of one of them ended with the same model, so "
    assert headlines(same)[0].startswith(told)


def test_a_difference_that_is_no_number_is_not_measured() -> None:
    found = two_arms([5.0, 5.1, 5.2], [4.9, 5.0, 5.1])
    lost = [replace(one, measured=_without_tokens(one.measured)) for one in found.results[3:]]
    lacking = replace(found, results=[*found.results[:3], *lost], baselines=None)
    ((one, other),) = pairs(found)
    assert gap_between(lacking, one, other).verdict is Verdict.NOT_MEASURED
    assert not holm_p_values(lacking)
    told = "SI-CIFG and CIFG cannot be compared: a run of one of them has no loss."
    assert headlines(lacking)[0] == told


def _without_tokens(measured: Measured | None) -> Measured | None:
    return measured and replace(measured, rows=np.zeros_like(measured.rows))


def test_useless_models_are_not_ranked_however_wide_the_gap() -> None:
    clear = Interval(-1.0, -1.1, -0.9)
    assert verdict_of(clear, 3, useless=True) is Verdict.USELESS
    assert verdict_of(clear, 3, useless=False) is Verdict.LOWER
    assert verdict_of(Interval(-1.0, -math.inf, math.inf), 1, useless=False) is Verdict.FEW_SEEDS


def tuned() -> StudyResult:
    """Return a study in which validation and test clients prefer different rates."""
    study = Study(
        axes=[ARMS, RATES], compare=["model.architecture"], tune=["client.learning_rate"], seeds=3
    )
    losses = {0.3: (5.0, 5.2), 1.0: (5.1, 5.0), 3.0: (None, None)}
    results = [
        result(study.trial(points, seed), losses[float(points[1].value)][1],
               validation=losses[float(points[1].value)][0])
        for points in study.combinations()
        for seed in range(3)
    ]  # fmt: skip
    return StudyResult(study, results, study_result(study, {}).baselines)


def test_the_best_is_chosen_on_validation_clients_and_reported_on_test_clients() -> None:
    found = tuned()
    chosen = found.chosen(found.places[0])
    assert chosen is not None
    assert chosen.points[1].value == 0.3
    assert found.part == "test"
    assert chosen.mean("loss", found.part) == pytest.approx(5.2)
    assert chosen.mean("loss", "validation") == pytest.approx(5.0)


def test_the_area_counts_diverged_runs_as_the_unigram_model() -> None:
    found = tuned()
    first = math.log(1 / 0.3) * (5.2 + 5.0) / 2
    second = math.log(3) * (5.0 + 6.0) / 2
    assert area_by_rate(found, found.places[0]) == pytest.approx(
        3 * [(first + second) / math.log(10)]
    )
    assert area_by_rate(two_arms([5.0], [5.0]), found.places[0]) == []


def test_shares_that_are_no_ratio_of_columns_have_intervals_over_clients_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = two_arms([5.0], [4.9])
    ((one, other),) = pairs(found)
    ratios = gap_between(found, one, other).over_clients[0]
    own = replace(found.task, ratios={})
    monkeypatch.setattr(StudyResult, "task", property(lambda _: own))
    others = gap_between(found, one, other).over_clients[0]
    assert set(others) == {"loss", *own.curves}
    for name, interval in others.items():
        assert interval.low == pytest.approx(ratios[name].low)
        assert interval.high == pytest.approx(ratios[name].high)


def test_rounds_to_the_target_are_of_evaluated_rounds() -> None:
    found = two_arms([5.0, 5.5], [5.0, 5.0])
    settings = [found.chosen(place) for place in found.places]
    assert settings[0] is not None
    # The bigram model has 5.4: the second seed never gets there. A round takes two seconds.
    assert rounds_to_target(found, settings[0]) == [(2, 4.0), None]
