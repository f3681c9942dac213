"""Runs that end before their last round, and the best model that they keep."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedsi import Experiment
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from server.runs.summary import Summary
from simulations import simulate
from simulations.cli.main import main
from simulations.finished_run import open_run

OVERSHOOTS = {
    "server.rounds": 12,
    "server.evaluate_every": 1,
    "server.optimizer": "sgdm",
    "server.learning_rate": 3.0,
}
"""The held-out loss falls, and then rises for some rounds."""
SAME = ("rounds", "ended_by", "model_sha256", "best_round", "best_heldout_loss", "tokens_trained")


def values_of(summary: Summary) -> list[object]:
    return [getattr(summary, key) for key in SAME]


def losses(run: RunFolder) -> list[float]:
    return [r.heldout["loss"] for r in run.records() if r.heldout]


@pytest.mark.parametrize("stopped", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_run_that_lost_patience_ends_there_whenever_it_was_interrupted(
    smoke: Experiment, cache: Path, tmp_path: Path, stopped: int
) -> None:
    patient = smoke.updated({**OVERSHOOTS, "server.patience": 2})
    whole = simulate(patient, out=tmp_path / "whole", cache=cache)
    summary = whole.summary
    assert (summary.status, summary.ended_by) == ("stopped", "server.patience")
    assert summary.best_round
    assert stopped < summary.best_round + 2 == summary.rounds < 12
    found = losses(RunFolder(tmp_path / "whole"))
    assert summary.best_heldout_loss == min(found) == found[summary.best_round]

    def interrupt(_: Experiment, record: RoundRecord) -> None:
        if record.round == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(patient, out=tmp_path / "parts", cache=cache, on_round=interrupt)
    resumed = simulate(patient, out=tmp_path / "parts", cache=cache, resume=True, workers=2)
    assert values_of(resumed.summary) == values_of(summary)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert "best.safetensors" in names
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names
    one, two = (tmp_path / name / "best.safetensors" for name in ("whole", "parts"))
    assert one.read_bytes() == two.read_bytes()
    assert [r.ended for r in RunFolder(tmp_path / "parts").records()][-2:] == [
        "", "server.patience",
    ]  # fmt: skip


def test_the_best_model_is_that_of_its_round(
    smoke: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = smoke.updated(OVERSHOOTS)
    summary = simulate(wild, out=tmp_path / "r", cache=cache).summary
    number = summary.best_round
    assert number
    assert 1 < number < summary.rounds
    until = simulate(wild.updated({"server.rounds": number}), cache=cache)
    best = open_run(tmp_path / "r", best=True).trained.parameters
    assert all(torch.equal(best[name], p) for name, p in until.parameters.items())
    last = open_run(tmp_path / "r").trained.parameters
    assert not all(torch.equal(last[name], p) for name, p in until.parameters.items())
    arguments = [str(tmp_path / "r"), "--json", "--cache", str(cache)]
    assert main(["evaluate", *arguments, "--best"]) == 0
    assert f'"heldout_loss": {summary.best_heldout_loss}' in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "r"), "word1", "--best"]) == 0
    (tmp_path / "r" / "best.safetensors").write_bytes(b"short")
    assert main(["predict", str(tmp_path / "r"), "word1"]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "r"), "word1", "--best"]) == 2
    assert "best.safetensors is damaged" in capsys.readouterr().err


def test_a_best_model_that_is_the_last_has_no_second_file(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    summary = simulate(smoke, out=tmp_path / "r", cache=cache).summary
    assert summary.best_round == summary.rounds == 4
    assert not (tmp_path / "r" / "best.safetensors").exists()
    best, last = (open_run(tmp_path / "r", best=best).trained.parameters for best in (True, False))
    assert all(torch.equal(best[name], p) for name, p in last.items())


def test_an_observer_that_returns_true_ends_the_run(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    rare = smoke.updated({"server.evaluate_every": 50})
    stopped = simulate(
        rare, out=tmp_path / "r", cache=cache, on_round=lambda _, record: record.round == 3
    )
    summary = stopped.summary
    assert (summary.status, summary.ended_by) == ("stopped", "observer")
    assert (summary.rounds, summary.best_round) == (3, 3)
    three = simulate(rare.updated({"server.rounds": 3}), cache=cache).summary
    for key in ("model_sha256", "heldout_loss", "tokens_trained"):
        assert getattr(summary, key) == getattr(three, key)
    records = RunFolder(tmp_path / "r").records()
    assert [record.ended for record in records] == ["", "", "", "observer"]
    assert records[-1].heldout
    assert simulate(rare, out=tmp_path / "r", cache=cache, resume=True).summary == summary


@pytest.mark.parametrize(
    ("keys", "rounds"), [({"server.budget_tokens": 1}, 1), ({"server.target_loss": 99.0}, 2)]
)
def test_budgets_and_targets_end_a_run(
    smoke: Experiment, cache: Path, keys: dict[str, Any], rounds: int
) -> None:
    summary = simulate(smoke.updated(keys), cache=cache).summary
    assert (summary.rounds, summary.ended_by) == (rounds, *keys)
    assert summary.heldout_loss


def test_traffic_is_what_clients_would_send(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    flaky = smoke.updated({"devices.dropout": 0.4, "server.rounds": 2})
    summary = simulate(flaky, out=tmp_path / "r", cache=cache).summary
    message = 4 * summary.parameters
    untrained, *records = RunFolder(tmp_path / "r").records()
    assert untrained.upload_bytes == untrained.download_bytes == 0
    assert [r.upload_bytes for r in records] == [message * r.clients for r in records]
    assert [r.download_bytes for r in records] == [
        message * flaky.server.cohort_size for _ in records
    ]
    assert summary.upload_bytes == sum(r.upload_bytes for r in records)
    assert summary.clients_dropped
    limited = flaky.updated({"server.budget_bytes": 1})
    assert simulate(limited, cache=cache).summary.rounds == 1


def test_a_private_run_that_is_stopped_claims_what_was_planned(
    smoke: Experiment, cache: Path
) -> None:
    private = smoke.updated(
        {
            "server.sampling": "poisson",
            "server.averaging": "uniform",
            "privacy.mechanism": "gaussian",
            "privacy.noise_multiplier": 1.0,
            "privacy.delta": 1e-5,
        }
    )
    whole = simulate(private, cache=cache).summary.privacy
    stopped = simulate(private, cache=cache, on_round=lambda *_: True).summary
    assert stopped.rounds == 1
    assert whole
    assert stopped.privacy
    assert stopped.privacy.epsilon == whole.epsilon
    assert stopped.privacy.accounted_rounds == whole.accounted_rounds == 4
