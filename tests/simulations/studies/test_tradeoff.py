"""The trade-off study from the command line to its page."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedsi import Experiment, UserError
from server.rounds import RoundRecord
from simulations.cli.main import main
from simulations.presets import load_preset
from simulations.reports.tradeoff import tradeoff_report
from simulations.reports.tradeoff_figure import (
    epsilon_places,
    noise_places,
    tradeoff_figure,
)
from simulations.reports.tradeoff_findings import tradeoff_findings, tradeoff_table
from simulations.studies.grid import Study, Trial, TrialResult
from simulations.studies.tradeoff import (
    EPSILON,
    NOISE,
    Level,
    Tradeoff,
    experiment_of,
    with_noise,
    without_noise,
)
from tests.summaries import PRIVACY, summary_of

PRIVATE = [
    "privacy.mechanism=gaussian", "privacy.clip_norm=0.5", "server.sampling=poisson",
    "server.averaging=uniform", "server.rounds=3", "server.evaluate_every=1",
    "server.optimizer=sgd", "server.learning_rate=1.0",
]  # fmt: skip
SMALL = ["--preset", "smoke", *(word for key in PRIVATE for word in ("--set", key))]
NOISES = ["--noise-multipliers", "0,1,1e4", "--architectures", "si_cifg"]

private = Experiment(
    privacy={"mechanism": "gaussian", "noise_multiplier": 3.0},
    server={"sampling": "poisson", "averaging": "uniform"},
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Run a trade-off whose largest noise makes it diverge."""
    folder = tmp_path_factory.mktemp("study") / "out"
    code = main(["tradeoff", *SMALL, *NOISES, "--out", str(folder), "--cache", str(cache)])
    assert code == 0
    return folder


def test_it_leaves_tables_a_figure_and_a_page(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    files = {f"tradeoff.{suffix}" for suffix in ("csv", "json", "png", "svg")}
    assert names == {*files, "report.html", "runs"}
    rows = pd.read_csv(finished / "tradeoff.csv")
    assert len(rows) == 3
    assert list(rows["noise_multiplier"]) == [0, 1, 1e4]
    assert list(rows["status"]) == ["finished", "finished", "diverged"]
    assert list(rows["privacy_noise_multiplier"]) == list(rows["noise_multiplier"])
    page = (finished / "report.html").read_text()
    for text in ("Privacy and utility of SI-CIFG on synthetic", "<svg", "Diverged: "):
        assert text in page


def test_noise_is_what_changes(finished: Path) -> None:
    result = json.loads((finished / "tradeoff.json").read_text())
    free, noisy, ruined = result["levels"]
    assert free["epsilon"] is None
    assert free["noise_on_mean"] == 0
    assert noisy["noise_on_mean"] == pytest.approx(0.5 / 10)
    assert 0 <= ruined["epsilon"] < noisy["epsilon"]
    losses = [level["architectures"]["si_cifg"]["heldout_loss"] for level in result["levels"]]
    assert losses[0] != losses[1]
    assert losses[2] is None
    claimed = [run["privacy"]["epsilon"] for run in result["runs"] if run["noise_multiplier"] == 1]
    assert claimed == [noisy["epsilon"]]


def test_resuming_runs_nothing_again(
    finished: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = sorted((finished / "runs").rglob("summary.json"))
    before = [path.stat().st_mtime_ns for path in runs]
    same = ["tradeoff", *SMALL, *NOISES, "--out", str(finished), "--cache", str(cache)]
    assert main([*same, "--resume", "--json"]) == 0
    assert [path.stat().st_mtime_ns for path in runs] == before
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((finished / "tradeoff.json").read_text())
    assert "epsilon ∞: noise multiplier 0, noise on the mean 0" in printed.err
    assert main(same) == 2
    assert "already holds a trade-off" in capsys.readouterr().err
    assert main([*same, "--resume", "--set", "privacy.clip_norm=0.25"]) == 2
    assert "another experiment or corpus" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--architectures", "cifg,elman"], "model.architecture = 'elman'"),
        (["--target-epsilons", "8", "--noise-multipliers", "1"], "not both"),
        (["--target-epsilons", "low"], "--target-epsilons takes numbers"),
        (["--target-epsilons", "inf,inf"], "takes different values"),
        (["--target-epsilons", "0"], "privacy.target_epsilon = 0.0 is not allowed"),
        (["--target-epsilons", "nan"], "privacy.target_epsilon = nan is not allowed"),
        (["--noise-multipliers", "-1"], "privacy.noise_multiplier = -1.0 is not allowed"),
        (["--noise-multipliers", "inf"], "privacy.noise_multiplier = inf is not allowed"),
        (["--set", "privacy.target_epsilon=2"], "privacy.target_epsilon is what a trade-off"),
        (["--set", "privacy.mechanism=none"], "--set privacy.mechanism=gaussian --set server"),
        (["--set", "privacy.epsilon_budget=3"], "privacy.epsilon_budget would end"),
        (["--set", "server.averaging=examples"], "needs server.averaging=uniform"),
        (["--set", "server.sampling=shuffled"], "has no valid accounting"),
    ],
)
def test_bad_input(
    arguments: list[str],
    expected: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    code = main(["tradeoff", *SMALL, *arguments, "--out", str(out), "--cache", str(cache)])
    assert code == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


def test_an_experiment_without_privacy_is_told_what_to_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tradeoff", "--preset", "smoke"]) == 2
    words = capsys.readouterr().err.split()
    named = [after for word, after in pairwise(words) if word == "--set"]
    assert (
        without_noise(
            load_preset("smoke"), dict(pair.split("=") for pair in named)
        ).privacy.noise_multiplier
        == 0
    )


def test_a_level_replaces_the_noise_of_the_experiment() -> None:
    base = without_noise(private, {"server.rounds": 7})
    assert (base.server.rounds, base.privacy.noise_multiplier) == (7, 0)
    for axis, value, multiplier, target in [
        (EPSILON, math.inf, 0, None),
        (EPSILON, 2.0, None, 2),
        (NOISE, 0.0, 0, None),
        (NOISE, 1.5, 1.5, None),
    ]:
        privacy = with_noise(base, axis, value).privacy
        assert (privacy.noise_multiplier, privacy.target_epsilon) == (multiplier, target)
    trial = Trial("cifg", EPSILON, 2.0, 5)
    assert experiment_of(base, trial) == with_noise(base, EPSILON, 2.0).updated(
        {"seed": 5, "model.architecture": "cifg"}
    )
    assert trial.name == "cifg-epsilon2-seed5"
    with pytest.raises(UserError, match="mechanism=none"):
        without_noise(Experiment(), {})


def result(
    architecture: str, epsilon: float, seed: int, loss: float | None, **privacy: Any
) -> TrialResult:
    summary = summary_of(
        loss, 1 / loss if loss else None, seed=seed, privacy=replace(PRIVACY, **privacy)
    )
    record = RoundRecord(1, 5.0, 1, 0, 0, 0, 1, 1.0)
    return TrialResult(Trial(architecture, EPSILON, epsilon, seed), summary, [record])


LEVELS = [Level(math.inf, 0, 0), Level(8, 0.6, 0.001), Level(1, 1.8, 0.004)]
VALUES = [math.inf, 8.0, 1.0]
LOSSES = {"cifg": (5.0, 5.25, 6.1), "si_cifg": (5.2, 5.2, None)}


def fabricated(seeds: int = 1, **privacy: Any) -> Tradeoff:
    """Return a trade-off whose later seeds have a loss that is higher by .1 each."""
    results = [
        result(name, value, seed, loss and loss + 0.1 * seed, **privacy)
        for seed in range(seeds)
        for name, losses in LOSSES.items()
        for value, loss in zip(VALUES, losses, strict=True)
    ]
    return Tradeoff(list(LOSSES), VALUES, results, LEVELS)


def test_findings_say_what_was_found() -> None:
    text = " ".join(tradeoff_findings(fabricated()))
    for sentence in (
        "At epsilon ∞ CIFG has the lower loss by 0.200; its accuracy is 0.200 against 0.192.",
        "At epsilon 8 SI-CIFG has the lower loss by 0.050;",
        "At epsilon 1 only CIFG did not diverge.",
        "CIFG has a loss of 5.000 at epsilon ∞ and 6.100 at 1.",
        "SI-CIFG has a loss of 5.200 at epsilon ∞ and 5.200 at 8.",
        "No better than the unigram model, so without use: CIFG at epsilon 1.",
        "cohorts of 20 from 900 clients were simulated and stand for cohorts of 500 from 10,000",
        "none was tuned to a level",
        "One seed is one seed",
    ):
        assert sentence in text
    assert "extrapolation" not in " ".join(tradeoff_findings(fabricated(extrapolated=False)))


def test_gaps_are_held_against_the_range_of_seeds() -> None:
    text = " ".join(tradeoff_findings(fabricated(seeds=2)))
    assert "CIFG has the lower loss by 0.200, 4.0 times half the range of the seeds" in text
    assert "SI-CIFG has the lower loss by 0.050, within half the range of the seeds" in text
    assert "means of 2 seeds" in text


def test_the_table_has_a_row_for_each_level() -> None:
    header, rows = tradeoff_table(fabricated())
    assert header == [
        "epsilon", "noise multiplier", "noise on the mean",
        "CIFG loss", "accuracy", "SI-CIFG loss", "accuracy",
    ]  # fmt: skip
    assert rows == [
        ["∞", "0", "0", "5.000", "0.200", "5.200", "0.192"],
        ["8", "0.6", "0.001", "5.250", "0.190", "5.200", "0.192"],
        ["1", "1.8", "0.004", "6.100", "0.164", "diverged", ""],
    ]


def test_json_has_no_infinity() -> None:
    values = json.loads(json.dumps(tradeoff_report(fabricated()).values, allow_nan=False))
    assert [level["epsilon"] for level in values["levels"]] == [None, 8, 1]
    assert values["levels"][2]["architectures"]["si_cifg"]["heldout_loss"] is None
    assert values["levels"][1]["architectures"]["si_cifg"]["half_range"] == 0
    assert [run["target_epsilon"] for run in values["runs"][:3]] == [None, 8, 1]


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
    noises = [1 / max(epsilon, 1e-3) for epsilon in epsilons]
    assert noise_places(noises) == pytest.approx([-place for place in places])


def test_the_figure_shows_every_setting() -> None:
    figure = tradeoff_figure(fabricated(seeds=2))
    assert "cohorts of 500 from 10,000" in figure.get_suptitle()
    assert "cohorts of 20 were simulated" in figure.get_suptitle()
    assert len(figure.axes) == 4
    for axes in figure.axes:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert ticks in (["∞", "8", "1"], ["0", "0.001", "0.004"])
        means = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
        assert [len(values) for values in means] == [3, 2]
        crosses = [line for line in axes.lines if line.get_marker() == "x"]
        assert [np.asarray(line.get_xdata()) for line in crosses] == [[axes.get_xticks()[2]]]
    losses = np.asarray(figure.axes[0].lines[0].get_ydata())
    assert losses == pytest.approx([5.05, 5.3, 6.15])


def test_a_table_of_runs_without_privacy_has_no_columns_for_it() -> None:
    run = result("cifg", 8, 0, 5.0)
    plain = TrialResult(run.trial, replace(run.summary, privacy=None), run.records)
    assert "privacy" not in " ".join(map(str, Study(["cifg"], [8], [plain]).table()))
