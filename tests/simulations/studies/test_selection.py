"""The privacy cost of a study: counts of runs, shared cohorts, and the cases without a bound."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedsi import Experiment
from fedsi.privacy.accounting import accounted_plan, epsilon
from simulations.cli.main import main
from simulations.reports.findings import findings
from simulations.reports.study_privacy import study_privacy_sentences
from simulations.reports.study_table import study_json
from simulations.studies.axes import Axis
from simulations.studies.selection import StudyPrivacy, study_privacy
from simulations.studies.study import Study
from tests.simulations.studies.fabricated import study_result

PRIVATE = {
    "server.sampling": "poisson", "server.averaging": "uniform", "server.rounds": 4,
    "server.cohort_size": 5, "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 4.0,
    "privacy.delta": 1e-5, "data.heldout_by": "clients",
}  # fmt: skip
BASE = Experiment().updated(PRIVATE)
CLIENTS = 200


def rates(experiment: Experiment, *values: float, seeds: int = 1) -> list[Experiment]:
    return [
        experiment.updated({"server.learning_rate": value, "seed": seed})
        for value in values
        for seed in range(seeds)
    ]


def cost(experiments: list[Experiment]) -> StudyPrivacy:
    found = study_privacy(experiments, CLIENTS)
    assert found
    return found


def text(experiments: list[Experiment]) -> str:
    return " ".join(study_privacy_sentences(cost(experiments)))


def test_runs_of_a_seed_are_one_release_and_seeds_compose() -> None:
    found = cost(rates(BASE, 0.1, 0.2, 0.3, 0.4, seeds=2))
    plan = accounted_plan(BASE, CLIENTS)
    assert (found.runs, found.shared_cohorts, found.without_noise) == (8, True, 0)
    assert found.epsilon == epsilon(replace(plan, noise_multiplier=2.0, rounds=8)).epsilon
    assert found.random
    assert found.random.mean == 8


def test_a_delta_that_is_enough_for_a_run_may_be_too_small_for_all() -> None:
    long = BASE.updated({"server.rounds": 20_000, "privacy.delta": 1e-11})
    for others in ((), ({"privacy.noise_multiplier": 5.0, "seed": 9},)):
        found = cost([*rates(long, 0.1, seeds=9), *map(long.updated, others)])
        assert found.epsilon is None
        assert "set a larger privacy.delta" in found.reason


def test_secret_cohorts_are_not_shared() -> None:
    secret = BASE.updated({"privacy.secure_noise": True})
    found = cost(rates(secret, 0.1, 0.2, 0.3))
    plan = accounted_plan(secret, CLIENTS)
    assert not found.shared_cohorts
    assert found.epsilon == epsilon(replace(plan, rounds=12)).epsilon


def test_it_says_which_bound_holds() -> None:
    told = text(rates(BASE, 0.1, 0.2))
    for part in ("made 2 runs on the same clients",
                 "by composition, because their number was fixed",
                 "which have the same cohorts", "do not hold for a fixed one",
                 "Held-out clients, by whose losses settings are chosen"):  # fmt: skip
        assert part in told


WITHOUT: dict[str, tuple[dict[str, object], str]] = {
    "held-out sentences": ({"data.heldout_by": "sentences"}, "hold out clients"),
    "little noise": ({"privacy.noise_multiplier": 1e-4}, "too little for a finite epsilon"),
}


@pytest.mark.parametrize("name", WITHOUT)
def test_it_says_that_none_holds(name: str) -> None:
    changes, reason = WITHOUT[name]
    found = cost(rates(BASE.updated(changes), 0.1, 0.2))
    assert (found.epsilon, found.random) == (None, None)
    told = text(rates(BASE.updated(changes), 0.1, 0.2))
    assert "no bound on the privacy cost of their results holds" in told
    assert reason in told


def test_cohorts_of_several_sizes_have_a_bound_unless_a_seed_is_shared() -> None:
    others = BASE.updated({"server.cohort_size": 10})
    assert "runs of one seed differ in how their cohorts are drawn" in text([BASE, others])
    for apart in ({"seed": 1}, {"privacy.secure_noise": True}):
        found = cost([BASE, others.updated(apart)]).epsilon
        alone = epsilon(accounted_plan(others, CLIENTS)).epsilon
        assert found
        assert alone < found < 2 * alone


def test_runs_without_noise_are_counted_apart() -> None:
    none = BASE.updated({"privacy.noise_multiplier": 0.0})
    found = cost([none, *rates(BASE, 0.1, 0.2)])
    assert (found.runs, found.without_noise) == (3, 1)
    assert found.epsilon == cost(rates(BASE, 0.1, 0.2)).epsilon
    assert "1 add no noise: no bound holds for choices" in text([none, *rates(BASE, 0.1, 0.2)])


def test_there_is_nothing_to_say_of_one_run_or_without_privacy() -> None:
    assert study_privacy([BASE], CLIENTS) is None
    assert study_privacy([Experiment(), Experiment()], CLIENTS) is None
    assert not list(study_privacy_sentences(None))


def test_halving_counts_the_runs_of_all_stages() -> None:
    study = Study(
        experiment=BASE,
        axes=(Axis(key="server.learning_rate", values=(0.1, 0.2)),),
        tune=("server.learning_rate",), design="halving", first_rounds=1, factor=2,
    )  # fmt: skip
    result = study_result(study, {(0.1,): [5.0], (0.2,): [5.2]})
    # Both have a result of the last stage here, after those of one and two rounds.
    assert result.privacy
    assert result.privacy.runs == 6
    assert any("made 6 runs on the same clients" in one for one in findings(result))


def test_the_json_and_the_findings_have_it() -> None:
    axes = (Axis(key="server.learning_rate", values=(0.1, 0.2)),)
    result = study_result(Study(experiment=BASE, axes=axes), {(0.1,): [5.0], (0.2,): [5.2]})
    stored = study_json(result)["privacy_of_all_runs"]
    assert (stored["runs"], stored["shared_cohorts"], stored["reason"]) == (2, True, "")
    assert min(stored["random"]["epsilon"], stored["epsilon"]) > 0
    assert any("made 2 runs on the same clients" in one for one in findings(result))


@pytest.mark.slow
def test_a_study_states_it_everywhere(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    settings = [f"--set={key}={value}" for key, value in {**PRIVATE, "server.rounds": 1}.items()]
    command = ["sweep", "--preset", "smoke", *settings, "--vary", "server.learning_rate=0.1,0.2"]
    assert main([*command, "--out", str(out), "--cache", str(cache)]) == 0
    told = "The study made 2 runs on the same clients."
    assert told in " ".join(capsys.readouterr().out.split())
    assert told in (out / "report.html").read_text()
    stored = json.loads((out / "sweep.json").read_text())["privacy_of_all_runs"]
    assert (stored["runs"], stored["epsilon"] > 0) == (2, True)
    assert stored["random"]["law"] in {"Poisson", "geometric", "logarithmic"}
    for place in (out, next((out / "runs").iterdir())):
        assert main(["privacy", "--statement", "--run", str(place)]) == 0
        assert told in capsys.readouterr().out
