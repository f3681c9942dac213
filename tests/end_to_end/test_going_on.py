"""Runs continued beyond their end have the bits of runs that were longer from the beginning."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment, UserError
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from server.runs.settled import settled_as
from server.runs.summary import Summary
from simulations import simulate
from simulations.cli.main import main

SAME = ("model_sha256", "heldout_loss", "tokens_trained", "best_round", "upload_bytes")


def values_of(summary: Summary) -> list[object]:
    return [getattr(summary, key) for key in SAME]


def interrupt_at(number: int):  # type: ignore[no-untyped-def]
    def on_round(_: Experiment, record: RoundRecord) -> None:
        if record.round == number:
            raise KeyboardInterrupt

    return on_round


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_the_bits_of_a_long_one(
    smoke: Experiment, cache: Path, tmp_path: Path, workers: int
) -> None:
    short = smoke.updated({"server.rounds": 6, "server.evaluate_every": 4})
    long = short.updated({"server.rounds": 12})
    whole = simulate(long, cache=cache).summary
    first = simulate(short, out=tmp_path, cache=cache, workers=workers).summary
    assert (first.rounds, first.ended_by) == (6, "server.rounds")
    with pytest.raises(KeyboardInterrupt):
        simulate(long, out=tmp_path, cache=cache, resume=True, on_round=interrupt_at(9))
    found = simulate(long, out=tmp_path, cache=cache, resume=True, workers=3 - workers).summary
    assert values_of(found) == values_of(whole)
    records = RunFolder(tmp_path).records()
    assert [record.round for record in records] == list(range(13))
    assert [record.ended for record in records if record.ended] == ["server.rounds"]
    assert settled_as(long, RunFolder(tmp_path).experiment()) == RunFolder(tmp_path).experiment()
    assert records[6].heldout  # which the long run has not evaluated


def test_the_command_goes_on_with_more_rounds(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--out", str(tmp_path / "r"), "--cache", str(cache)]
    small = ["--preset", "smoke", "--set", "server.rounds=1"]
    assert main(["run", *small, *place]) == 0
    go_on = ["run", "--resume", *place]
    assert main([*go_on, "--set", "server.rounds=3"]) == 0
    summary = RunFolder(tmp_path / "r").summary()
    assert summary
    assert summary.rounds == 3
    capsys.readouterr()
    assert main([*go_on, "--set", "server.rounds=2"]) == 2
    assert "has 3 rounds; give more" in capsys.readouterr().err
    assert main([*go_on, "--set", "server.rounds=5", "--set", "seed=3"]) == 2
    assert "another experiment" in capsys.readouterr().err
    (tmp_path / "r" / "checkpoint.safetensors").unlink()
    assert main([*go_on, "--set", "server.rounds=5"]) == 2
    assert "without which a finished run cannot be continued" in capsys.readouterr().err
    assert main(go_on) == 0
    assert RunFolder(tmp_path / "r").summary() == summary


PRIVATE = {
    "server.sampling": "poisson",
    "server.averaging": "uniform",
    "privacy.mechanism": "gaussian",
    "privacy.noise_multiplier": 1.0,
    "privacy.delta": 1e-5,
}


@pytest.mark.parametrize(
    ("keys", "more", "why"),
    [
        ({"server.schedule": "cosine"}, {"server.rounds": 6}, "server.schedule=cosine"),
        ({"server.schedule": "cooldown"}, {"server.rounds": 6}, "server.schedule=cooldown"),
        ({"client.schedule": "cosine"}, {"server.rounds": 6}, "client.schedule=cosine"),
        (PRIVATE, {"server.rounds": 6}, "privacy.mechanism=gaussian"),
        (
            {"client.learning_rate": 1e30},
            {"server.rounds": 6},
            "diverged in round 1 and cannot be continued",
        ),
        (
            {"client.example_noise_multiplier": 1.0, "server.averaging": "uniform"},
            {"server.rounds": 6},
            "client.example_noise_multiplier.*who took part",
        ),
        ({}, {"server.rounds": 3}, "server.rounds=3 leaves nothing to run"),
        ({}, {"server.rounds": 4, "server.patience": 3}, "leaves nothing to run"),
        (
            {},
            {"server.rounds": 6, "server.target_loss": 99.0},
            "server.target_loss=99.0 the run in .* would have ended after round 2",
        ),
    ],
)
def test_a_run_does_not_go_on_where_its_rounds_would_have_been_others(
    smoke: Experiment,
    cache: Path,
    tmp_path: Path,
    keys: dict[str, Any],
    more: dict[str, Any],
    why: str,
) -> None:
    experiment = smoke.updated(keys)
    simulate(experiment, out=tmp_path, cache=cache)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=why):
        simulate(experiment.updated(more), out=tmp_path, cache=cache, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_cooldown_that_has_not_begun_does_not_mind(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    cooling = smoke.updated({"server.schedule": "cooldown"})
    longer = cooling.updated({"server.rounds": 8})
    with pytest.raises(KeyboardInterrupt):
        simulate(cooling, out=tmp_path, cache=cache, on_round=interrupt_at(2))
    found = simulate(longer, out=tmp_path, cache=cache, resume=True).summary
    assert found.model_sha256 == simulate(longer, cache=cache).summary.model_sha256


def test_a_run_that_lost_patience_goes_on_with_more_of_it(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    hasty = smoke.updated(
        {
            "server.rounds": 9,
            "server.evaluate_every": 1,
            "server.optimizer": "sgdm",
            "server.learning_rate": 3.0,
            "server.patience": 1,
        }
    )
    assert simulate(hasty, out=tmp_path, cache=cache).summary.rounds == 3
    patient = hasty.updated({"server.patience": 2})
    found = simulate(patient, out=tmp_path, cache=cache, resume=True).summary
    whole = simulate(patient, cache=cache).summary
    assert values_of(found) == values_of(whole)
    assert (whole.rounds, whole.best_round) == (4, 2)


KILLED = """
import os, sys
from pathlib import Path
from fedsi import Experiment
from server.runs import folder
from server.runs.summary import Summary
from simulations import simulate

toml, out, cache, when = sys.argv[1:]
write, writes = folder.write_atomically, []

def killed(path, content, *mode):
    writes.append(path)
    if len(writes) == int(when):
        os.kill(os.getpid(), 9)
    write(path, content, *mode)

folder.write_atomically = killed
folder.Checksums.write.__globals__["write_atomically"] = killed
simulate(Experiment.from_toml(toml), out=out, cache=Path(cache), resume=True)
"""


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("when", [2, *(pytest.param(n, marks=_SLOW) for n in (1, 3, 4))])
def test_a_kill_while_a_run_is_made_to_go_on_spoils_nothing(
    smoke: Experiment, cache: Path, tmp_path: Path, when: int
) -> None:
    short = smoke.updated({"server.rounds": 1})
    longer = short.updated({"server.rounds": 2})
    simulate(short, out=tmp_path, cache=cache)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments = [longer.to_toml(), str(tmp_path), str(cache), str(when)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, env=environment)
    assert done.returncode == -9
    found = simulate(longer, out=tmp_path, cache=cache, resume=True).summary
    assert found.model_sha256 == simulate(longer, cache=cache).summary.model_sha256
