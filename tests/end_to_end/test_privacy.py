"""Private runs end to end: the real command, Flower objects and files."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedsi import Experiment, UserError
from fedsi.learning.block import BlockTrainer
from fedsi.privacy import canaries
from fedsi.privacy.mechanisms.gaussian import Gaussian
from fedsi.seeds import Seed
from fedsi.sums.clipping import move_clipped
from fedsi.threads import torch_threads
from server.cohorts.canaries import to_train, with_canaries
from server.cohorts.sampling import Draw, draw_cohort, poisson_cohort, shuffled_cohort
from server.differential_privacy import Privacy, privacy_of
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.membership import membership_of
from simulations.studies.privacy_levels import level_of

POISSON = {
    "server.sampling": "poisson",
    "server.averaging": "uniform",
    "privacy.mechanism": "gaussian",
    "privacy.noise_multiplier": 1.0,
    "privacy.clip_norm": 0.5,
}
SHUFFLED = {
    **POISSON,
    "server.sampling": "shuffled",
    "server.min_separation": 4,
    "privacy.mechanism": "blt",
}


ADAPTIVE = {**POISSON, "privacy.clipping": "adaptive", "privacy.noise_multiplier": 0.5}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(POISSON, marks=pytest.mark.slow),
        SHUFFLED,
        pytest.param(ADAPTIVE, marks=pytest.mark.slow),
        pytest.param({**POISSON, "privacy.canaries": 50}, marks=pytest.mark.slow),
        pytest.param({**SHUFFLED, "privacy.canaries": 50}, marks=pytest.mark.slow),
    ],
)
def test_workers_and_interruptions_change_no_bit(
    smoke: Experiment, settings: dict[str, object], cache: Path, tmp_path: Path
) -> None:
    experiment = smoke.updated(settings)
    whole = simulate(experiment, cache=cache, out=tmp_path / "whole")

    def stop(_: Experiment, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(experiment, cache=cache, out=tmp_path / "stopped", on_round=stop)
    resumed = simulate(experiment, cache=cache, out=tmp_path / "stopped", resume=True, workers=2)
    assert resumed.summary.model_sha256 == whole.summary.model_sha256
    assert resumed.summary.privacy == whole.summary.privacy


def test_a_run_says_what_it_spent(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    experiment = smoke.updated({**POISSON, "privacy.delta": 1e-5})
    claim = simulate(experiment, cache=cache, out=tmp_path).summary.privacy
    assert claim
    with (tmp_path / "rounds.csv").open() as file:
        spent = [float(row["epsilon"]) for row in csv.DictReader(file)]
    assert spent == sorted(spent)
    assert spent[1] > spent[0] == 0
    assert claim.epsilon == pytest.approx(spent[-1])
    assert (claim.accountant, claim.delta) == ("PLD", 1e-5)
    assert claim.noise_on_mean == pytest.approx(0.5 / 10)
    assert not claim.extrapolated


def test_a_run_says_how_clients_took_part(smoke: Experiment, cache: Path) -> None:
    experiment = smoke.updated({**SHUFFLED, "server.rounds": 40, "server.evaluate_every": 40})
    clients = smoke.data.population
    privacy = simulate(experiment, cache=cache).summary.privacy
    assert privacy
    assert (claim := privacy.participations)
    assert claim.most_allowed == claim.most > 1
    assert claim.closest_allowed == 4 <= (claim.closest or 0)
    assert 0 < claim.clients <= clients
    assert claim.checked == "the accounted clients"
    more = {"privacy.population": 10**6, "privacy.cohort_size": 5000}
    summary = simulate(smoke.updated({**SHUFFLED, **more}), cache=cache).summary
    assert summary.privacy
    assert summary.privacy.participations
    assert "assumed" in summary.privacy.participations.checked


def test_a_sampler_that_breaks_the_accounting_stops_the_run(
    smoke: Experiment,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Rounds 1 to 3 follow the plan; round 4 draws the clients of round 2 again."""

    def draw(experiment: Experiment, population: int, trace: None, number: int, seed: Seed) -> Draw:
        return draw_cohort(experiment, population, trace, 2 if number == 4 else number, seed)

    monkeypatch.setattr("server.rounds.draw_cohort", draw)
    settings = [word for k, v in SHUFFLED.items() for word in ("--set", f"{k}={v}")]
    place = ["--out", str(tmp_path / "run"), "--cache", str(cache)]
    command = ["run", "--preset", "smoke", *settings, "--set", "server.rounds=6", *place]
    for again in ([], ["--resume"]):
        assert main([*command, *again]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "round 4 was not run, because epsilon would not hold: client" in error
        assert [r.round for r in RunFolder(tmp_path / "run").records()] == [0, 1, 2, 3]
    assert RunFolder(tmp_path / "run").summary() is None


def test_noise_that_cannot_be_drawn_again_is_not(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    """A killed run loses its current round, and no earlier one."""
    secure = smoke.updated({**POISSON, "privacy.secure_noise": True, "server.evaluate_every": 50})
    models: list[bytes] = []

    def keep(_: Experiment, _record: RoundRecord) -> None:
        models.append((tmp_path / "checkpoint.safetensors").read_bytes())

    simulate(secure, cache=cache, out=tmp_path, on_round=keep)
    assert len(set(models)) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"privacy.delta": 1e-13}, "is below 1e-11"),
        ({"privacy.epsilon_budget": 0.001}, "less than the first round costs"),
        (
            {"privacy.secure_noise": True, "privacy.noise_multiplier": 1e6},
            "secure_noise draws noise of a standard deviation between",
        ),
    ],
)
def test_what_has_no_cost_is_refused_before_the_first_round(
    smoke: Experiment, cache: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        simulate(smoke.updated({**POISSON, **changes}), cache=cache, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_level_has_the_noise_of_its_mechanism(smoke: Experiment) -> None:
    rounds = {"server.rounds": 60, "server.evaluate_every": 60}
    levels = {}
    for name in ("tree", "banded", "blt"):
        private = smoke.updated({**SHUFFLED, **rounds, "privacy.mechanism": name})
        level, priced = level_of(private, 180), privacy_of(private, 180)
        assert priced is not None
        levels[name] = level.noise_on_mean
        assert level.noise_on_mean == pytest.approx(0.5 * priced.noise_on_mean(60))
    assert len({round(noise, 4) for noise in levels.values()}) == 3


def test_a_run_without_privacy_claims_nothing(smoke: Experiment, cache: Path) -> None:
    seen: list[float] = []
    result = simulate(smoke, cache=cache, on_round=lambda _, record: seen.append(record.epsilon))
    assert result.summary.privacy is None
    assert all(math.isinf(epsilon) for epsilon in seen)


def test_the_budget_stops_a_run_also_when_resumed(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    free = simulate(smoke.updated(POISSON), cache=cache, out=tmp_path / "free")
    spent = [r.epsilon for r in RunFolder(tmp_path / "free").records()]
    budget = (spent[3] + spent[4]) / 2
    limited = smoke.updated({**POISSON, "privacy.epsilon_budget": budget})

    def stop(_: Experiment, record: RoundRecord) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(limited, cache=cache, out=tmp_path / "limited", on_round=stop)
    result = simulate(limited, cache=cache, out=tmp_path / "limited", resume=True)
    assert (result.summary.status, result.summary.rounds) == ("budget spent", 3)
    assert result.summary.privacy
    assert result.summary.privacy.epsilon
    assert result.summary.privacy.epsilon <= budget
    assert result.summary.heldout_loss is not None
    assert free.summary.status == "finished"


def test_noise_ruins_a_tiny_run_and_clipping_alone_does_not(smoke: Experiment, cache: Path) -> None:
    losses = {
        z: simulate(
            smoke.updated({**POISSON, "server.rounds": 8, "privacy.noise_multiplier": z}),
            cache=cache,
        ).summary.metric("loss")
        for z in (0.0, 100.0)
    }
    assert losses[0.0] < math.log(204)
    assert not losses[100.0] <= losses[0.0] + 0.5


AUDITED = ["audit", "--preset", "audit", "--json"]


def run_audit(
    cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, object]]:
    code = main([*AUDITED, "--cache", str(cache), "--out", str(folder)])
    return code, json.loads(capsys.readouterr().out)["audit"]


def test_an_honest_run_passes_its_audit(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = run_audit(cache, tmp_path / "run", capsys)
    assert (code, found["refuted"]) == (0, False)
    assert (tmp_path / "run" / "audit.png").stat().st_size > 10_000
    assert main(["audit", str(tmp_path / "run"), "--cache", str(cache), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["audit"] == found
    assert 0.2 < report["membership"]["auc"] < 0.8


def test_an_attack_does_not_depend_on_the_number_of_cores(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(smoke.updated({"server.rounds": 1}), cache=cache, out=tmp_path)
    threads: list[int] = []
    honest = BlockTrainer.evaluate

    def evaluate(
        self: BlockTrainer, parameters: torch.Tensor, clients: list[int]
    ) -> NDArray[np.float64]:
        threads.append(torch.get_num_threads())
        return honest(self, parameters, clients)

    monkeypatch.setattr(BlockTrainer, "evaluate", evaluate)
    with torch_threads(2):
        assert membership_of(RunFolder(tmp_path), cache)
    assert threads == [1, 1]


def no_clipping(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "fedsi.learning.block.move_clipped",
        lambda start, trained, spans, ends, _, sums: move_clipped(
            start, trained, spans, ends, 1e6, sums
        ),
    )


def noise_times(factor: float) -> Callable[[pytest.MonkeyPatch], None]:
    honest = Privacy._noisy_total

    def less(self, *arguments):  # type: ignore[no-untyped-def]
        return honest(replace(self, noise_multiplier=factor * self.noise_multiplier), *arguments)

    return lambda patch: patch.setattr(Privacy, "_noisy_total", less)


def noise_every_two_rounds(patch: pytest.MonkeyPatch) -> None:
    honest, kept = Gaussian.noise, {}

    def repeated(self, state, round_number, fresh):  # type: ignore[no-untyped-def]
        if round_number % 2:
            kept["noise"] = honest(self, state, round_number, fresh)
        return kept["noise"]

    patch.setattr(Gaussian, "noise", repeated)


def rate_doubled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "server.cohorts.sampling.poisson_cohort",
        lambda seed, number, population, size, cap: poisson_cohort(
            seed, number, population, 2 * size, cap
        ),
    )


PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "noise forgotten": noise_times(0.0),
    "clipping forgotten": no_clipping,
    "noise at a third": noise_times(1 / 3),
    "noise repeated every two rounds": noise_every_two_rounds,
    "sampling rate doubled": rate_doubled,
}


SLOW = (
    "clipping forgotten",
    "noise at a third",
    "noise repeated every two rounds",
    "sampling rate doubled",
)
"""Faults that are found like others; only `make test-all` plants them."""


@pytest.mark.parametrize(
    "fault", [pytest.param(one, marks=pytest.mark.slow if one in SLOW else ()) for one in PLANTED]
)
def test_planted_faults_are_caught(
    fault: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PLANTED[fault](monkeypatch)
    code, found = run_audit(cache, tmp_path / "run", capsys)
    assert (code, found["refuted"]) == (1, True)


def test_an_audited_run_with_the_separation_ignored_does_not_get_far(
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Canaries are in the same passes as the clients."""
    monkeypatch.setattr(
        "server.cohorts.sampling.shuffled_cohort",
        lambda seed, number, population, size, _: shuffled_cohort(
            seed, number, population, size, 1
        ),
    )
    settings = {
        "server.sampling": "shuffled", "server.min_separation": 5, "server.cohort_size": 60,
        "privacy.mechanism": "blt",
    }  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    place = ["--cache", str(cache), "--out", str(tmp_path / "run")]
    assert main([*AUDITED, *words, *place]) == 1
    assert "epsilon would not hold" in capsys.readouterr().err


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "shuffled gaussian": (
        {**POISSON, "server.sampling": "shuffled"},
        "has no valid accounting: cohorts of fixed size cut from a shuffled pass",
    ),
    "blt with poisson": (
        {**POISSON, "privacy.mechanism": "blt"},
        "has no valid accounting: correlated noise",
    ),
    "weights": ({**POISSON, "server.averaging": "examples"}, "averaging=uniform"),
    "no noise named": ({**POISSON, "privacy.noise_multiplier": "none"}, "either"),
    "both named": ({**POISSON, "privacy.target_epsilon": 1.0}, "either"),
    "without mechanism": ({"privacy.clip_norm": 0.5}, "no effect with privacy.mechanism=none"),
    "foreign key": ({**POISSON, "privacy.bands": 3}, "set privacy.mechanism=banded"),
    "dropout": ({**POISSON, "devices.dropout": 0.1}, "void the amplification"),
    "adaptive blt": ({**SHUFFLED, "privacy.clipping": "adaptive"}, "no valid accounting"),
    "few canaries": ({**POISSON, "privacy.canaries": 5}, "too few to bound anything"),
    "huge clip norm": ({**POISSON, "privacy.clip_norm": 1e9}, "can be summed exactly"),
}


@pytest.mark.parametrize("name", BAD)
def test_settings_that_claim_nothing_true_are_refused(smoke: Experiment, name: str) -> None:
    settings, sentence = BAD[name]
    with pytest.raises(UserError) as caught:
        smoke.updated(settings)
    assert sentence in str(caught.value)


def test_audits_of_what_cannot_be_audited(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], smoke: Experiment
) -> None:
    assert main(["audit", "--preset", "smoke"]) == 2
    assert "claims nothing that could be audited" in capsys.readouterr().err
    assert main(["audit", str(tmp_path / "nowhere")]) == 2
    assert "holds no finished run" in capsys.readouterr().err
    simulate(smoke.updated(POISSON), cache=cache, out=tmp_path / "run")
    assert main(["audit", str(tmp_path / "run"), "--cache", str(cache)]) == 2
    assert "had no canaries" in capsys.readouterr().err


def test_canaries_join_like_clients(smoke: Experiment) -> None:
    """Canaries are drawn with the clients; a coin decides which of the drawn ones take part."""
    experiment = smoke.updated({**POISSON, "privacy.canaries": 1000})
    population = with_canaries(experiment, 180)
    included = canaries.included(experiment.seed, 1000)
    counts = np.zeros(1000, np.int64)
    for number in range(1, 101):
        cohort = draw_cohort(experiment, population, None, number, experiment.seed).reporting
        clients, joined = to_train(experiment, 180, cohort)
        assert set(clients) == set(cohort[cohort < 180])
        counts[joined - canaries.FIRST] += 1
    assert not counts[~included].any()
    expected = 100 * 10 / population * included.sum()
    assert abs(counts.sum() - expected) < 5 * math.sqrt(expected)
