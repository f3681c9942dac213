"""The trade-off study from the command line to its page."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from fedsi import Experiment, UserError
from simulations.cli.main import main
from simulations.presets import load_preset
from simulations.studies.privacy_levels import EPSILON, NOISE, noise_axis, without_noise
from simulations.studies.study import Study

PRIVATE = [
    "privacy.mechanism=gaussian", "privacy.clip_norm=0.5", "server.sampling=poisson",
    "server.averaging=uniform", "server.rounds=3", "server.evaluate_every=1",
    "server.optimizer=sgd", "server.learning_rate=1.0",
]  # fmt: skip
SMALL = ["--preset", "smoke", *(word for key in PRIVATE for word in ("--set", key))]
NOISES = ["--noise-multipliers", "0,1,1e4", "--architectures", "si_cifg", "--quick"]

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
    files = {f"tradeoff.{suffix}" for suffix in ("csv", "json", "md", "png", "svg")}
    assert names == {*files, "ngrams.json", "report.html", "runs", "study.toml"}
    rows = pd.read_csv(finished / "tradeoff.csv")
    assert len(rows) == 3
    assert list(rows["noise_multiplier"]) == [0, 1, 1e4]
    assert list(rows["status"]) == ["finished", "finished", "diverged"]
    assert list(rows["privacy_noise_multiplier"]) == list(rows["noise_multiplier"])
    page = (finished / "report.html").read_text()
    for text in ("SI-CIFG on synthetic", "<svg", "every run diverged"):
        assert text in page


def test_noise_is_what_changes(finished: Path) -> None:
    result = json.loads((finished / "tradeoff.json").read_text())
    free, noisy, ruined = result["places"]
    assert free["epsilon"] is None
    assert free["noise_on_mean"] == 0
    assert noisy["noise_on_mean"] == pytest.approx(0.5 / 10)
    assert 0 <= ruined["epsilon"] < noisy["epsilon"]
    losses = [place["chosen"] and place["chosen"]["all"]["loss"] for place in result["places"]]
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
    told = "3 runs (1 of model.architecture, 3 of noise_multiplier, 1 of seed), together about 90 "
    assert told in printed.err
    assert main(same) == 2
    assert "already holds a tradeoff" in capsys.readouterr().err
    assert main([*same, "--resume", "--set", "privacy.clip_norm=0.25"]) == 2
    assert "another experiment (privacy.clip_norm is " in capsys.readouterr().err


def test_tuned_cohorts_are_told_with_their_costs(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = ["--noise-multipliers", "0,1", "--architectures", "si_cifg", "--seeds", "1"]
    words = ["tradeoff", *SMALL, *levels, "--vary", "server.cohort_size=3,5", "--set"]
    words += ["server.rounds=1", "--out", str(tmp_path / "out"), "--cache", str(cache), "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    told = [line for line in printed.err.splitlines() if line.startswith("epsilon ")]
    assert [line.partition(":")[0].partition(" (")[2] for line in told] == [
        "", "server cohort size 3)", "server cohort size 5)",
    ]  # fmt: skip
    noisy = json.loads(printed.out)["places"][1]
    size = noisy["chosen"]["values"]["server.cohort_size"]
    (line,) = (line for line in told if f"cohort size {size})" in line)
    assert line.startswith(f"epsilon {noisy['epsilon']:.3g} ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--architectures", "cifg,elman"], "model.architecture = 'elman'"),
        (["--target-epsilons", "8", "--noise-multipliers", "1"], "not both"),
        (["--architectures", "cifg", "--compare", "client.epochs=1,2"], "not both"),
        (["--compare", "epochs"], "--compare takes KEY=a,b,c"),
        (["--target-epsilons", "low"], "--target-epsilons takes numbers"),
        (["--target-epsilons", "inf,inf"], "takes different values"),
        (["--target-epsilons", "0"], "privacy.target_epsilon = 0.0 is not allowed"),
        (["--target-epsilons", "nan"], "privacy.target_epsilon = nan is not allowed"),
        (["--noise-multipliers", "-1"], "privacy.noise_multiplier = -1.0 is not allowed"),
        (["--noise-multipliers", "inf"], "privacy.noise_multiplier = inf is not allowed"),
        (["--set", "privacy.target_epsilon=2"], "privacy.target_epsilon is varied by a trade-off"),
        (["--set", "privacy.mechanism=none"], "--set privacy.mechanism=gaussian --set server"),
        (["--set", "privacy.epsilon_budget=3"], "privacy.epsilon_budget would end"),
        (["--set", "server.averaging=examples"], "needs server.averaging=uniform"),
        (["--set", "server.sampling=shuffled"], "has no valid accounting"),
        (["--quick", "--client-learning-rates", "1,3"], "and client.learning_rate is to be tuned"),
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
    assert len(error.strip().splitlines()) == 1, error
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
    for name, value, multiplier, target in [
        (EPSILON, math.inf, 0, None),
        (EPSILON, 2.0, None, 2),
        (NOISE, 0.0, 0, None),
        (NOISE, 1.5, 1.5, None),
    ]:
        axis = noise_axis(name, [value])
        (trial,) = Study(experiment=base, axes=[axis]).trials()
        privacy = trial.experiment.privacy
        assert (privacy.noise_multiplier, privacy.target_epsilon) == (multiplier, target)
        assert trial.name == f"{axis.label}{value:g}-seed0"
    with pytest.raises(UserError, match="mechanism=none"):
        without_noise(Experiment(), {})
