"""Runs with secure noise: their files do not reveal who took part."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from fedsi import Experiment
from fedsi.seeds import Seed
from server.cohorts.availability import Trace
from server.cohorts.sampling import Draw, draw_cohort
from server.round_record import RoundRecord
from server.runs.checkpoint import CHECKPOINT
from server.runs.folder import COHORT_KEY, RunFolder
from simulations import simulate
from simulations.cli.main import main
from tests.end_to_end.test_privacy import POISSON, SHUFFLED

SECURE = {"privacy.secure_noise": True}
COMING_AND_GOING = {
    "server.sampling": "shuffled",
    "server.min_separation": 4,
    "devices.availability": "diurnal",
    "devices.dropout": 0.2,
    "devices.speed_sigma": 1.0,
    "devices.timeout": 2.0,
}
Cohorts = list[tuple[Seed, list[int]]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Cohorts:
    """Record each drawn cohort and the seed of its draw."""
    cohorts: Cohorts = []

    def noted(
        experiment: Experiment, population: int, trace: Trace | None, number: int, seed: Seed
    ) -> Draw:
        draw = draw_cohort(experiment, population, trace, number, seed)
        cohorts.append((seed, draw.reporting.tolist()))
        return draw

    monkeypatch.setattr("server.rounds.draw_cohort", noted)
    return cohorts


def recomputed(folder: Path) -> list[list[int]]:
    """Return the cohorts that follow from the files of a run."""
    run = RunFolder(folder)
    experiment, summary = run.experiment(), run.summary()
    assert summary is not None
    return [
        draw_cohort(
            experiment, summary.training_clients, None, number, experiment.seed
        ).reporting.tolist()
        for number in range(1, summary.rounds + 1)
    ]


@pytest.mark.parametrize("settings", [POISSON, {**SHUFFLED, **COMING_AND_GOING}])
def test_the_seed_of_a_secure_run_does_not_give_its_cohorts_away(
    settings: dict[str, object], smoke: Experiment, cache: Path, tmp_path: Path, drawn: Cohorts
) -> None:
    found = {}
    for name, secure in (("plain", False), ("one", True), ("two", True)):
        experiment = smoke.updated({**settings, "privacy.secure_noise": secure})
        simulate(experiment, cache=cache, out=tmp_path / name)
        found[name] = [cohort for _, cohort in drawn]
        drawn.clear()
    assert found["plain"] == recomputed(tmp_path / "plain")
    for run in ("one", "two"):
        pairs = zip(found[run], recomputed(tmp_path / run), strict=True)
        assert all(cohort != guessed for cohort, guessed in pairs if cohort)
    assert all(a != b for a, b in zip(found["one"], found["two"], strict=True) if a)


@pytest.mark.parametrize("settings", [POISSON, SHUFFLED])
def test_a_resumed_run_goes_on_with_its_secret(
    settings: dict[str, object], smoke: Experiment, cache: Path, tmp_path: Path, drawn: Cohorts
) -> None:
    experiment = smoke.updated({**settings, **SECURE})

    def stop(_: Experiment, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, cache=cache, out=tmp_path, on_round=stop)
    for name in (COHORT_KEY, CHECKPOINT):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    secret = RunFolder(tmp_path).secret()
    simulate(experiment, cache=cache, out=tmp_path, resume=True)
    assert {seed for seed, _ in drawn} == {secret}
    if settings is SHUFFLED:  # one permutation for all rounds of a pass
        everyone = np.concatenate([cohort for _, cohort in drawn])
        assert len(set(everyone.tolist())) == len(everyone) == 4 * 10
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not {COHORT_KEY, CHECKPOINT} & left.keys()
    assert not any(secret in text or secret.hex().encode() in text for text in left.values())


def test_without_its_secret_a_run_does_not_go_on(
    smoke: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = smoke.updated({**SHUFFLED, **SECURE})

    def stop(_: Experiment, record: RoundRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, cache=cache, out=tmp_path, on_round=stop)
    for damage in ((tmp_path / COHORT_KEY).write_bytes, lambda _: (tmp_path / COHORT_KEY).unlink()):
        damage(b"00\n")
        assert main(["run", "--resume", "--out", str(tmp_path), "--cache", str(cache)]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"{tmp_path / COHORT_KEY} is missing or damaged" in error
        assert "start again with --overwrite" in error
    assert main(["run", "--preset", "smoke", "--overwrite", "--out", str(tmp_path)]) == 0


def test_what_a_killed_run_left_is_removed_when_it_is_resumed(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    """The run was killed after it wrote its summary."""
    experiment = smoke.updated({**POISSON, **SECURE})
    simulate(experiment, cache=cache, out=tmp_path)
    for name in (COHORT_KEY, CHECKPOINT):
        (tmp_path / name).write_bytes(b"secret")
    simulate(experiment, cache=cache, out=tmp_path, resume=True)
    assert not {COHORT_KEY, CHECKPOINT} & {path.name for path in tmp_path.iterdir()}


EXAMPLE_PRIVATE = {
    "server.averaging": "uniform",
    "client.example_noise_multiplier": 1.0,
    "devices.dropout": 0.3,
    "data.population": 30,
    "data.median_examples": 5.0,
}


@pytest.mark.parametrize("stopped", [False, True])
def test_participations_are_counted_as_the_run_goes(
    stopped: bool, smoke: Experiment, cache: Path, tmp_path: Path, drawn: Cohorts
) -> None:
    experiment = smoke.updated(EXAMPLE_PRIVATE)

    def stop(_: Experiment, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    if stopped:
        with pytest.raises(KeyboardInterrupt):
            simulate(experiment, cache=cache, out=tmp_path, on_round=stop)
    result = simulate(experiment, cache=cache, out=tmp_path, resume=stopped)
    taken = np.bincount(np.concatenate([cohort for _, cohort in drawn]))
    assert result.summary.example_privacy
    assert result.summary.example_privacy.most_participations == taken.max() > 1
    assert result.summary.privacy is None


def test_an_audit_of_a_secure_run_makes_no_attack_that_needs_its_cohorts(
    smoke: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = {"privacy.canaries": 50, "server.rounds": 2}
    simulate(smoke.updated({**POISSON, **SECURE, **audited}), cache=cache, out=tmp_path)
    command = ["audit", str(tmp_path), "--cache", str(cache)]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["membership"] is None
    assert found["audit"]["canaries"] == 50
    assert main(command) == 0
    assert "it is unknown who took part" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "audit.html").read_text()
    assert "who took part in a run with secure noise is unknown" in page
    assert "no run repeats its bits" in page
