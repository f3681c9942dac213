"""Verdicts follow from intervals: a constructed case for each."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulations.reports.findings import findings, headlines
from simulations.reports.study_table import study_json
from simulations.studies.gaps import (
    Verdict,
    area_by_rate,
    gap_between,
    holm_p_values,
    is_useless,
    pairs,
    rounds_to_target,
    verdict_of,
    worse_than_unigram,
)
from simulations.studies.measured import Measured
from simulations.studies.results import StudyResult, TrialResult
from simulations.studies.statistics import Interval
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import ARMS, RATES, result, study_result


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


def test_a_client_that_one_run_could_not_evaluate_counts_for_neither() -> None:
    found = two_arms([5.0, 5.1, 5.2], [5.0, 5.1, 5.2])
    ((one, other),) = pairs(found)
    hardest = int(np.argmax(found.results[0].rows("all")[:, 2]))
    for result_ in found.results[3:]:
        assert result_.measured is not None
        result_.measured.rows[hardest] = np.nan
    gap = gap_between(found, one, other)
    assert gap.over_seeds["loss"].estimate == pytest.approx(0.0)
    assert gap.verdict is Verdict.NONE_SHOWN
    assert holm_p_values(found) == {(one, other): pytest.approx(1.0)}


@pytest.mark.parametrize("what", ["corpus_sha256", "vocabulary_sha256", "clients", "tokens"])
def test_runs_on_other_targets_are_not_paired_by_client(what: str) -> None:
    found = two_arms([5.0, 5.1, 5.2], [5.1, 5.21, 5.3])
    ((one, other),) = pairs(found)
    assert all(gap_between(found, one, other).over_clients.values())
    apart = [_on_other_targets(one, what) for one in found.results[3:]]
    gap = gap_between(replace(found, results=[*found.results[:3], *apart]), one, other)
    assert not gap.same_targets
    assert gap.over_clients == {0: {}, 1: {}, 2: {}}
    assert gap.over_seeds["loss"].estimate == pytest.approx(0.1, abs=0.01)
    said = headlines(replace(found, results=[*found.results[:3], *apart]))[0]
    assert "each evaluated on other clients or words" in said


def _on_other_targets(one: TrialResult, what: str) -> TrialResult:
    measured = one.measured
    assert measured is not None
    match what:
        case "clients":  # and another number of them
            kept = slice(0, 20)
            fewer = Measured(measured.clients[kept], measured.test[kept], measured.rows[kept], {})
            return replace(one, measured=fewer)
        case "tokens":
            rows = measured.rows.copy()
            rows[0, 1] += 1
            return replace(one, measured=replace(measured, rows=rows))
        case _:
            changes: dict[str, Any] = {what: "00"}
            return replace(one, summary=replace(one.summary, **changes))


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


def test_a_run_is_held_against_the_unigram_model_of_its_own_targets() -> None:
    axis = {"key": "data.vocabulary_size", "values": [200, 2000], "label": ""}
    study = Study(axes=[axis], compare=["data.vocabulary_size"], seeds=3)
    found = study_result(study, {})
    results = [
        result(study.trial(points, seed), loss + seed / 100, unigram=loss + better)
        for points, loss, better in zip(study.combinations(), (5.0, 6.5), (-0.5, 0.5), strict=True)
        for seed in range(3)
    ]
    found = replace(found, results=results)
    small, large = (found.chosen(place) for place in found.places)
    assert small is not None
    assert large is not None
    assert is_useless(found, small), "though the study's unigram model has 6"
    assert not is_useless(found, large), "though the study's unigram model has 6"
    assert worse_than_unigram(found, small) == pytest.approx([0.5, 0.51, 0.52])


def test_the_best_is_chosen_on_validation_clients_and_reported_on_test_clients() -> None:
    found = tuned()
    chosen = found.chosen(found.places[0])
    assert chosen is not None
    assert chosen.points[1].value == 0.3
    assert found.part == "test"
    assert chosen.mean("loss", found.part) == pytest.approx(5.2)
    assert chosen.mean("loss", "validation") == pytest.approx(5.0)


def by_seed(study: Study, losses: dict[tuple[object, ...], dict[int, float | None]]) -> StudyResult:
    """Return a study's result from the losses of each combination's seeds."""
    results = [
        result(study.trial(points, seed), loss)
        for points in study.combinations()
        for seed, loss in losses.get(tuple(p.value for p in points), {}).items()
    ]
    return StudyResult(study, results, study_result(study, {}).baselines)


HARD = {0: 0.0, 1: 0.0, 2: 0.6}
"""What a seed adds to a loss."""


@pytest.mark.parametrize(
    ("seeds", "chosen", "left_out", "ranked_on"),
    [
        ({0.3: (0, 1), 1.0: (0, 1, 2)}, 1.0, [0.3, 3.0], [0, 1, 2]),
        ({0.3: (0, 1), 1.0: (1, 2)}, 1.0, [3.0], [1]),
        ({0.3: (0, 1), 1.0: (1, 2), 3.0: (0, 1, 2)}, 1.0, [], [1]),
        ({0.3: (0,), 1.0: (1, 2)}, None, [0.3, 1.0, 3.0], []),
        ({0.3: (0, 1, 2), 1.0: (0, 1, 2)}, 1.0, [3.0], [0, 1, 2]),
    ],
)
def test_settings_are_chosen_over_equal_seeds(
    seeds: dict[float, tuple[int, ...]],
    chosen: float | None,
    left_out: list[float],
    ranked_on: list[int],
) -> None:
    """Rate 1 is better than .3 at every seed, 3 diverged, and the last seed is the hardest."""
    study = Study(axes=[RATES], tune=["client.learning_rate"], seeds=3)
    plain = {0.3: 5.05, 1.0: 5.0, 3.0: None}
    found = by_seed(
        study,
        {
            (rate,): {seed: (loss := plain[rate]) and loss + HARD[seed] for seed in of}
            for rate, of in seeds.items()
        },
    )
    best = found.chosen(found.places[0])
    assert (best and best.points[0].value) == chosen
    stored = study_json(found)["places"][0]
    assert stored["ranked_on_seeds"] == ranked_on
    assert stored["left_out_of_the_choice"] == [{RATES["key"]: rate} for rate in left_out]
    told = [one for one in findings(found) if one.startswith("Left out of the choice because runs")]
    assert len(told) == bool(left_out)
    for rate in left_out:
        missing = f"client lr {rate:g} ({len(seeds.get(rate, ()))} of 3 seeds)"
        assert missing in told[0]
    alone = "No setting of the experiment with a loss has runs of all seeds: the choice is by those"
    assert (f"{alone} of seed 1 alone." in findings(found)) == (ranked_on == [1])


def test_a_missing_seed_claims_nothing_wrong() -> None:
    """CIFG is better at each seed with its best rate; the other has only the easy seeds."""
    study = Study(
        axes=[ARMS, RATES], compare=["model.architecture"], tune=["client.learning_rate"], seeds=3
    )
    found = by_seed(
        study,
        {
            ("cifg", 0.3): {0: 4.95, 1: 4.96},
            ("cifg", 1.0): {seed: 4.9 + 0.001 * seed + hard for seed, hard in HARD.items()},
            ("si_cifg", 1.0): {seed: 4.93 + hard for seed, hard in HARD.items()},
        },
    )
    assert headlines(found)[0].startswith("SI-CIFG has a higher loss than CIFG: +0.029")


def test_the_area_counts_diverged_runs_as_the_unigram_model() -> None:
    found = tuned()
    first = math.log(1 / 0.3) * (5.2 + 5.0) / 2
    second = math.log(3) * (5.0 + 6.0) / 2
    area = (first + second) / math.log(10)
    assert area_by_rate(found, found.places[0]) == pytest.approx({0: area, 1: area, 2: area})
    assert area_by_rate(two_arms([5.0], [5.0]), found.places[0]) == {}


@pytest.mark.parametrize(
    ("seeds", "told"),
    [
        ((0, 1, 2, 3), "SI-CIFG has a higher mean loss over rates than CIFG: +0.102 [+0.100, "),
        ((0, 1, 2), "No claim about the mean loss over rates of SI-CIFG and CIFG: 2 seeds with"),
    ],
)
def test_areas_are_compared_over_the_seeds_that_both_arms_have(
    seeds: Sequence[int], told: str
) -> None:
    study = Study(
        axes=[ARMS, RATES], compare=["model.architecture"], tune=["client.learning_rate"], seeds=5
    )
    # Seeds differ by .2: SI-CIFG is worse by .1 at each, and better by .1 at each place of a list.
    by_arm = {"cifg": range(1, 1 + len(seeds)), "si_cifg": seeds}
    results = [
        result(study.trial(points, seed), 4.5 + 0.2 * seed + (0.1 + 0.001 * seed) * (arm != "cifg"))
        for points in study.combinations()
        for arm in [str(points[0].value)]
        for seed in by_arm[arm]
    ]
    said = findings(StudyResult(study, results, study_result(study, {}).baselines))
    assert [one for one in said if one.startswith(told)]
    assert not [one for one in said if "tolerant" in one]


def test_areas_are_of_whole_grids() -> None:
    both = ("client.learning_rate", "server.learning_rate")
    drawn = Study(
        axes=[ARMS, *({"key": key, "low": 0.1, "high": 10.0} for key in both)],
        compare=["model.architecture"], tune=both, design="random", draws=4, seeds=3,
    )  # fmt: skip
    grid = Study(axes=[ARMS, *({"key": key, "values": [0.1, 1.0]} for key in both)], tune=both)
    losses = {tuple(p.value for p in points): [5.0] * 3 for points in drawn.combinations()}
    found = study_result(drawn, losses)
    assert not any(area_by_rate(found, place) for place in found.places)
    assert not [one for one in findings(found) if "best of the other rate" in one]
    losses = {tuple(p.value for p in points): [5.0, 5.1] for points in grid.combinations()}
    losses["cifg", 1.0, 1.0] = [5.2]
    found = study_result(grid, losses)
    cifg, si_cifg = found.places
    assert area_by_rate(found, cifg) == pytest.approx({0: 5.0}), "seed 1 lacks a pair of rates"
    assert area_by_rate(found, si_cifg) == pytest.approx({0: 5.0, 1: 5.1})


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
