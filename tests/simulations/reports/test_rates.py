"""The report of a study that sets suggested learning rates beside the best ones."""

from dataclasses import replace

import pytest

from fedsi.errors import UserError
from simulations.reports.rates import _slopes, place_rates, rates_table, rates_verdicts, rules
from simulations.reports.study import study_report
from simulations.studies.results import StudyResult
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import result, study_result

TEXT = """
preset = "smoke"
tune = ["client.learning_rate"]
suggest = true
[experiment.model]
architecture = "transformer"
[[axes]]
key = "model.layers"
values = [1, 4]
label = "layers"
[[axes]]
key = "client.learning_rate"
values = [0.125, 0.25, 1.0, 2.0]
label = "lr"
"""
LOSSES = {(1, 0.125): 5.9, (1, 0.25): 5.8, (1, 1.0): 5.5, (1, 2.0): 5.6,
          (4, 0.125): 5.7, (4, 0.25): 5.4, (4, 1.0): 5.5, (4, 2.0): None}  # fmt: skip


def fabricated(suggested: dict[str, list[float]]) -> StudyResult:
    study = Study.from_toml(TEXT)
    found = study_result(study, {points: [loss] for points, loss in LOSSES.items()})
    return StudyResult(study, found.results, found.baselines, suggested=suggested)


def test_each_rule_and_its_cost() -> None:
    whole = fabricated({"layers1": [1.8], "layers4": [0.9]})
    shallow, deep = place_rates(whole)
    assert (shallow.best, deep.best, deep.layers) == (1.0, 0.25, 4)
    assert rules([shallow, deep]) == {
        "the first best rate": [1.0, 1.0],
        "client.depth_rule": [1.0, 0.125],
        "fedsi suggest-lr": [1.8, 0.9],
        "suggest-lr, scaled": [1.0, 0.5],
    }
    assert deep.cost(1.0) == pytest.approx(0.1)
    assert deep.cost(1.9) == float("inf")
    header, rows = rates_table(whole)
    assert header[:3] == ["", "best rate", "its loss"]
    assert rows[1][3:] == ["1 (+0.100)", "0.125 (+0.300)", "0.9 (+0.100)", "0.5 (+0.000)"]
    told = " ".join(rates_verdicts(whole))
    assert "Cost of the first best rate: 0.100 nats on average and 0.100 at most." in told
    assert "Cost of client.depth_rule: 0.300 nats on average" in told
    assert "1 seed: no claim beyond it." in told
    assert "best rate goes as depth^-1.00 and the suggestion as depth^-0.50" in told


def test_the_report_has_them_and_says_where_a_rule_diverges() -> None:
    report = study_report(fabricated({"layers1": [1.8], "layers4": [2.2]}), {})
    assert report.values["suggested"] == {"layers1": [1.8], "layers4": [2.2]}
    assert report.title.startswith("Learning rates by layers on")
    assert any("it diverges in 1 of 2" in sentence for sentence in report.verdicts)
    assert report.rows[1][5] == "2.2 (diverged)"
    assert study_report(fabricated({}), {}).rows == []
    low = study_report(fabricated({"layers1": [1.8], "layers4": [0.05]}), {})
    assert low.rows[1][5] == "0.05 (beyond the sweep)"
    assert any("1 of 2 rates are beyond the sweep" in sentence for sentence in low.verdicts)


def test_with_halving_costs_are_of_equal_rounds_and_of_rates_that_ran() -> None:
    text = TEXT.replace("suggest = true", 'suggest = true\ndesign = "halving"\nfirst_rounds = 1')
    study = Study.from_toml(
        text.replace('"transformer"', '"transformer"\n[experiment.server]\nrounds = 3')
    )
    short = [
        result(study.trial(points, 0, 1), 5.5 if rate == 1.0 else 5.51)
        for points in study.combinations()
        if (rate := points[1].value) != 2.0
    ]
    last = [
        result(study.trial(points, 0), 4.5)
        for points in study.combinations()
        if points[1].value == 1.0
    ]
    going_on = {one.trial.points for one in last}
    stopped = [one for one in short if one.trial.points not in going_on]
    shorter = [one for one in short if one.trial.points in going_on]
    found = StudyResult(
        study, [*last, *stopped], suggested={"layers1": [0.25], "layers4": [0.25]}, shorter=shorter
    )
    told = place_rates(found)
    assert [one.best for one in told] == [1.0, 1.0]
    assert all(one.cost(0.25) == pytest.approx(0.01) for one in told), "not of 3 rounds against 1"
    assert all(2.0 not in one.losses for one in told), "a rate that never ran has not diverged"


def test_one_depth_of_each_kind_has_no_slope() -> None:
    found = fabricated({"layers1": [1.8], "layers4": [0.9]})
    shallow, deep = place_rates(found)
    alone = replace(deep, apart_from_layers="other")
    assert _slopes([shallow, deep])
    assert _slopes([shallow, alone]) == []


def test_suggestions_without_a_sweep_are_refused() -> None:
    text = TEXT.replace('tune = ["client.learning_rate"]', "")
    with pytest.raises(UserError, match=r"tune must be \['client\.learning_rate'\]"):
        Study.from_toml(text)
