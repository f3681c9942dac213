"""Reports of studies whose levels are of noise: what privacy costs, in words and figures."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedsi import Experiment
from simulations.reports.findings import findings
from simulations.reports.study import study_report
from simulations.reports.study_table import study_json, study_table
from simulations.reports.study_words import number
from simulations.reports.tradeoff_figure import epsilon_places, tradeoff_figure
from simulations.studies.privacy_levels import EPSILON, NOISE, Level, level_of, noise_axis
from simulations.studies.results import StudyResult
from simulations.studies.run import levels_of
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import ARMS, ngrams, result, study_result
from tests.summaries import PRIVACY

LEVELS = (Level(math.inf, 0, 0), Level(8, 0.6, 0.001), Level(1, 1.8, 0.004))
LOSSES = {"cifg": (5.0, 5.25, 6.1), "si_cifg": (5.2, 5.2, None)}


def tradeoff(seeds: int = 1, *, extrapolated: bool = True) -> StudyResult:
    """Return a trade-off in which each seed's loss is .1 higher than the previous seed's."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 0.0},
        server={"sampling": "poisson", "averaging": "uniform"},
    )
    axes = [ARMS, noise_axis(EPSILON, [math.inf, 8.0, 1.0]).model_dump()]
    study = Study(experiment=base, axes=axes, compare=["model.architecture"], seeds=seeds)
    losses = {
        (name, epsilon): [loss and loss + 0.1 * seed for seed in range(seeds)]
        for name, by_level in LOSSES.items()
        for epsilon, loss in zip((math.inf, 8.0, 1.0), by_level, strict=True)
    }
    costs = dict(zip(study.combinations(), LEVELS * 2, strict=True))
    return study_result(
        study, losses, privacy=replace(PRIVACY, extrapolated=extrapolated), setting_levels=costs
    )


def test_a_tradeoff_says_what_privacy_costs() -> None:
    text = " ".join(findings(tradeoff(3)))
    for sentence in (
        "At epsilon ∞: SI-CIFG has a higher loss than CIFG: +0.200",
        "At epsilon 8: SI-CIFG has a lower loss than CIFG: -0.050",
        "At epsilon 1: SI-CIFG and CIFG cannot be compared",
        "CIFG at epsilon 8 has a higher loss than CIFG at epsilon ∞: +0.250",
        "No ranking of CIFG at epsilon 1 and CIFG at epsilon ∞",
        "cohorts of 20 from 900 clients were simulated and stand for cohorts of 500 from 10,000",
        f"for {PRIVACY.adjacency} (accountant: PLD), with the gaussian mechanism",
        "Nothing was tuned: each may have a better learning rate.",
        "all 40 evaluated clients, because nothing was chosen",
    ):
        assert sentence in text
    assert "extrapolation" not in " ".join(findings(tradeoff(extrapolated=False)))


def test_a_tradeoffs_table_and_json_have_what_each_level_costs() -> None:
    header, rows = study_table(tradeoff())
    assert header[:4] == ["epsilon", "noise multiplier", "noise on the mean", ""]
    assert rows[0][:5] == ["∞", "0", "0", "CIFG", "5.000"]
    assert rows[5][:5] == ["1", "1.8", "0.004", "SI-CIFG", "diverged"]
    values = json.loads(json.dumps(study_json(tradeoff()), allow_nan=False))
    assert [place["epsilon"] for place in values["places"]] == [None, None, 8, 8, 1, 1]
    assert values["places"][5]["chosen"] is None
    assert values["runs"][0]["target_epsilon"] is None


def ways() -> StudyResult:
    """Return a trade-off of two kinds of noise, of equal epsilon and different noise."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 0.0},
        server={"sampling": "poisson", "averaging": "uniform"},
    )
    noise = {
        "name": "noise", "label": "", "values": ["gaussian", "blt"],
        "changes": [
            {"privacy.mechanism": "gaussian", "server.sampling": "poisson"},
            {"privacy.mechanism": "blt", "server.sampling": "shuffled"},
        ],
    }  # fmt: skip
    levels = noise_axis(EPSILON, [math.inf, 2.0]).model_dump()
    study = Study(experiment=base, axes=[noise, levels], compare=["noise"])
    losses = {("gaussian", math.inf): [5.0], ("gaussian", 2.0): [5.2]}
    costs = (Level(math.inf, 0, 0), Level(2, 1, 0.001), Level(math.inf, 0, 0), Level(2, 9, 0.01))
    found = study_result(
        study,
        losses,
        privacy=PRIVACY,
        setting_levels=dict(zip(study.combinations(), costs, strict=True)),
    )
    other = replace(PRIVACY, mechanism="blt", sampling="shuffled", adjacency="zero out one client")
    of_blt = [
        result(trial, loss, privacy=other)
        for trial, loss in zip(study.trials()[2:], (5.0, 5.1), strict=True)
    ]
    return replace(found, results=[*found.results, *of_blt])


def test_arms_of_different_noise_have_their_own_costs() -> None:
    _, rows = study_table(ways())
    assert [row[:4] for row in rows[2:4]] == [
        ["2", "1", "0.001", "gaussian"],
        ["2", "9", "0.01", "blt"],
    ]
    told = " ".join(findings(ways()))
    assert "blt: Epsilon covers all rounds at delta" in told
    assert "zero out one client (accountant: PLD), with the blt mechanism and shuffled" in told
    assert "These are different guarantees" in told
    axes = tradeoff_figure(ways()).axes[0]
    assert axes.get_xlabel() == "epsilon; left: more private"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["∞", "2"]
    costs = {points: Level(n, 1, 1) for n, points in enumerate(ways().setting_levels)}
    assert "over rounds" in study_report(replace(ways(), setting_levels=costs), {}).caption


def test_a_level_costs_what_its_chosen_setting_does() -> None:
    """Of two tuned cohort sizes, the one that is chosen with noise is not the first."""
    base = Experiment(
        privacy={"mechanism": "gaussian", "noise_multiplier": 0.0},
        server={"sampling": "poisson", "averaging": "uniform", "rounds": 50},
    )
    noise, cohorts = noise_axis(NOISE, [0.0, 1.0]), {"key": "server.cohort_size", "values": [5, 50]}
    study = Study(experiment=base, axes=[noise, cohorts], tune=["server.cohort_size"])
    losses = {(0.0, 5): 4.8, (0.0, 50): 4.9, (1.0, 5): 5.9, (1.0, 50): 5.2}
    results = [
        result(trial, loss, privacy=replace(PRIVACY, cohort_size=int(trial.points[1].value)))
        for trial, loss in zip(study.trials(), losses.values(), strict=True)
    ]
    found = StudyResult(study, results, ngrams(), levels_of(study, 900))
    first, other = (level_of(trial.experiment, 900) for trial in study.trials()[2:])
    assert first.epsilon < other.epsilon / 10
    _, rows = study_table(found)
    assert rows[1][:4] == [number(other.epsilon), "1", number(other.noise_on_mean), "50"]
    place = study_json(found)["places"][1]
    assert (place["epsilon"], place["noise_on_mean"]) == (other.epsilon, other.noise_on_mean)
    told = " ".join(findings(found))
    assert "noise multiplier 0: Epsilon covers all rounds" in told
    assert "noise multiplier 1: Epsilon covers all rounds" in told
    assert "poisson sampling of 50 from" in told
    figure = tradeoff_figure(found)
    assert number(other.epsilon) in figure.axes[0].get_xticklabels()[1].get_text()
    assert "cohorts of 5 or 50 from 10,000 clients" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("epsilons", "order"),
    [
        ([math.inf, 8, 1], [2, 1, 0]),
        ([8, 1], [1, 0]),
        ([math.inf, 8], [1, 0]),
        ([math.inf], [0]),
        ([1, 0.1, 0], [2, 1, 0]),
    ],
)
def test_no_noise_lies_beyond_all_levels(epsilons: Sequence[float], order: list[int]) -> None:
    places = epsilon_places(epsilons)
    assert len(set(places)) == len(places)
    assert sorted(range(len(places)), key=lambda i: places[i]) == order


def test_a_tradeoffs_figure_shows_every_setting() -> None:
    figure = tradeoff_figure(tradeoff(seeds=2))
    assert "cohorts of 500 from 10,000" in figure.get_suptitle()
    assert "cohorts of 20 were simulated" in figure.get_suptitle()
    assert len(figure.axes) == 2
    for axes in figure.axes:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks == ["∞\n(0)", "8\n(0.001)", "1\n(0.004)"]
        means = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
        assert [len(values) for values in means] == [3, 2]
        crosses = [line for line in axes.lines if line.get_marker() == "x"]
        assert [np.asarray(line.get_xdata()) for line in crosses] == [[axes.get_xticks()[2]]]
    losses = np.asarray(figure.axes[0].lines[0].get_ydata())
    assert losses == pytest.approx([5.05, 5.3, 6.15])
