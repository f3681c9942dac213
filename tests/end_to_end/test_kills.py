"""A private run that is killed 20 times at random moments and resumed each time."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsi import Experiment
from server.differential_privacy import privacy_of
from server.runs.folder import RunFolder
from server.runs.rounds_file import ROUNDS
from simulations import simulate

KILLS = 20
BLT = {
    "server.rounds": 120,
    "server.evaluate_every": 10,
    "server.sampling": "shuffled",
    "server.averaging": "uniform",
    "privacy.mechanism": "blt",
    "privacy.clip_norm": 0.5,
    "privacy.noise_multiplier": 1.0,
}


def rows(out: Path) -> list[bytes]:
    """Return the whole lines of ``rounds.csv``."""
    path = out / ROUNDS
    return path.read_bytes().splitlines(keepends=True)[1:] if path.exists() else []


@pytest.mark.slow  # it starts a run with workers 21 times
@pytest.mark.parametrize("secure", [False, True], ids=["seeded", "secure"])
def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_were_not(
    smoke: Experiment, cache: Path, tmp_path: Path, *, secure: bool
) -> None:
    experiment = smoke.updated({**BLT, "privacy.secure_noise": secure})
    (tmp_path / "experiment.toml").write_text(experiment.to_toml())
    out, moments, seen = tmp_path / "run", random.Random(0), list[bytes]()
    command = [sys.executable, "-m", "simulations.cli.main", "run", "--cache", str(cache)]
    begin = [str(tmp_path / "experiment.toml"), "--out", str(out), "--workers", "2"]
    again = ["--resume", "--out", str(out), "--workers", "2"]
    for kill in range(KILLS):
        more = len(seen) + moments.randint(1, 2 * experiment.server.rounds // (KILLS + 10))
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(
                [*command, *(again if seen else begin)],
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        while len(rows(out)) < more and process.poll() is None:
            time.sleep(0.02 * moments.random())
        assert process.returncode is None, (kill, (tmp_path / "said").read_text())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if secure:  # a row that was seen belongs to a release, which must stay the only one
            assert rows(out)[: len(seen)] == seen
        seen = rows(out)
    summary = simulate(experiment, cache=cache, out=out, workers=2, resume=True).summary
    records = RunFolder(out).records()
    assert [record.round for record in records] == list(range(experiment.server.rounds + 1))
    private = privacy_of(experiment, summary.training_clients)
    assert private
    assert summary.privacy
    assert summary.privacy.epsilon == private.cost(experiment.server.rounds).epsilon
    if not secure:
        assert summary.model_sha256 == simulate(experiment, cache=cache).summary.model_sha256
