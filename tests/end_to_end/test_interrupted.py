"""Stopped and killed runs and studies: their files, and how they continue."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from server import progress
from server.round_record import RoundRecord
from server.runs import provenance
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.presets import load_preset
from simulations.studies.runner import run_trials
from tests.end_to_end.test_privacy import POISSON
from tests.processes import children_of

COMMAND = [sys.executable, "-m", "simulations.cli.main"]
ENDLESS = ["--preset", "smoke", "--set", "server.rounds=100000", "--set", "server.evaluate_every=2"]

KILLED = """
import os, sys
from pathlib import Path
from fedsi import Experiment, UserError
from server.runs import provenance
from server.runs.folder import RunFolder
from simulations import simulate

toml, out, cache, name = sys.argv[1:]
before = getattr(RunFolder, name)

def killed(self, *arguments):
    records = [a for a in arguments if hasattr(a, "train_loss")]
    if records[0].round == 3:
        os.kill(os.getpid(), 9)
    before(self, *arguments)

setattr(RunFolder, name, killed)
simulate(Experiment.from_toml(toml), out=out, cache=Path(cache))
"""


@pytest.mark.parametrize("killed_at", ["append", "save_checkpoint"])
def test_a_kill_between_checkpoint_and_row_releases_no_round_twice(
    smoke: Experiment, cache: Path, tmp_path: Path, killed_at: str
) -> None:
    secure = smoke.updated({**POISSON, "privacy.secure_noise": True})
    out = tmp_path / "run"
    arguments = [secure.to_toml(), str(out), str(cache), killed_at]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    # A row can only be seen if its round cannot be run again.
    assert len(RunFolder(out).records()) == 3
    seen: list[int] = []
    simulate(secure, out=out, cache=cache, resume=True, on_round=lambda _, r: seen.append(r.round))
    assert seen == ([4] if killed_at == "append" else [3, 4])
    assert [record.round for record in RunFolder(out).records()] == [0, 1, 2, 3, 4]


def test_long_rounds_are_kept_without_an_evaluation(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, bool] = {}

    def look(_: Experiment, record: RoundRecord) -> None:
        kept[record.round] = (tmp_path / "checkpoint.safetensors").exists()
        if record.round == 2:
            monkeypatch.setattr(progress, "CHECKPOINT_SECONDS", 0.0)

    simulate(smoke.updated({"server.evaluate_every": 50}), out=tmp_path, cache=cache, on_round=look)
    assert kept == {1: False, 2: False, 3: True, 4: True}


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_sigterm_is_like_a_ctrl_c(cache: Path, tmp_path: Path, workers: str) -> None:
    out = tmp_path / "r"
    command = [*COMMAND, "run", *ENDLESS, "--workers", workers, "--out", str(out)]
    process = started([*command, "--cache", str(cache)])
    wait_for((out / "checkpoint.safetensors").exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        f"error: interrupted; continue with: fedsi run --resume --out {out}"
    )
    records = RunFolder(out).records()
    assert [record.round for record in records] == list(range(len(records)))
    # Nothing is lost: the checkpoint is of the last round.
    with pytest.raises(KeyboardInterrupt):
        simulate(
            RunFolder(out).experiment(), out=out, cache=cache, resume=True, on_round=stop_at_once
        )
    assert len(RunFolder(out).records()) == len(records) + 1


def stop_at_once(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_the_runs_of_a_study_end_with_it_and_go_on(
    cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "o"
    study = ["--architectures", "cifg,si_cifg", "--client-learning-rates", "1", "--jobs", "2"]
    process = started([*COMMAND, "compare", *ENDLESS, *study, "--out", str(out)], cache)
    wait_for(lambda: len(list(out.rglob("checkpoint.safetensors"))) == 2, process)
    (server,) = children_of(process.pid)
    trials = children_of(server)
    assert len(trials) == 2
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (1 if number == signal.SIGTERM else -number)
    wait_for(lambda: not any(is_running(one) for one in (server, *trials)))
    for folder in (out / "runs").iterdir():  # both left a checkpoint of their last round
        run = RunFolder(folder)
        rounds = len(run.records())
        with pytest.raises(KeyboardInterrupt):
            simulate(run.experiment(), out=folder, cache=cache, resume=True, on_round=stop_at_once)
        # Killed between a checkpoint and its row, a run writes that row when it is resumed.
        assert len(RunFolder(folder).records()) - rounds in {1, 2}


def test_a_trial_that_was_killed_before_it_began_begins(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    experiment = smoke.updated({"server.rounds": 1})
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "experiment.toml").write_text(experiment.to_toml())
    trials = {"trial": experiment}
    run_trials(trials, tmp_path, cache, 1, fresh=False, on_records=lambda *_: None)
    assert RunFolder(tmp_path / "trial").summary()


def test_resuming_what_is_not_there_starts_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--preset", "smoke", "--set", "server.rounds=1", "--cache", str(cache)]
    assert main(["run", *small, "--resume", "--out", "r"]) == 0
    assert RunFolder(Path("r")).summary()
    study = ["--architectures", "cifg", "--client-learning-rates", "1", "--resume", "--out", "s"]
    assert main(["compare", *small, *study]) == 0
    assert Path("s/report.html").exists()


def test_a_second_process_is_refused(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    process = started([*COMMAND, "run", *ENDLESS, "--out", str(out)], cache)
    wait_for((out / "checkpoint.safetensors").exists, process)
    for more in (["--resume"], ["--overwrite", "--preset", "smoke"]):
        assert main(["run", *more, "--out", str(out), "--cache", str(cache)]) == 2
        assert f"{out} is in use by another process" in capsys.readouterr().err
    process.kill()
    process.communicate()
    assert main(["run", "--preset", "smoke", "--overwrite", "--set", "server.rounds=1",
                 "--out", str(out), "--cache", str(cache)]) == 0  # fmt: skip


def test_a_run_goes_on_where_its_bits_are_the_same(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        simulate(smoke, out=tmp_path, cache=cache, on_round=stop_at_once)
    assert RunFolder(tmp_path).provenance()
    monkeypatch.setattr(provenance, "processor", lambda: "another one")
    with pytest.raises(UserError, match=r"processor was .* and is another one; .*--other-machine"):
        simulate(smoke, out=tmp_path, cache=cache, resume=True)
    found = simulate(smoke, out=tmp_path, cache=cache, resume=True, other_machine=True).summary
    assert found.provenance
    assert found.provenance["processor"] == "another one"
    (earlier,) = found.provenance["earlier"]
    assert earlier["processor"] not in {"", "another one"}
    assert found.provenance["engine"] == "in_process"
    assert found.provenance == RunFolder(tmp_path).provenance()


def started(command: list[str], cache: Path | None = None) -> subprocess.Popen[str]:
    more = ["--cache", str(cache)] if cache else []
    return subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            raise AssertionError(process and process.communicate())
        time.sleep(0.05)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_run_goes_on_with_another_limit_of_waiting(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r"
    small = load_preset("smoke").updated({"server.rounds": 2})
    with pytest.raises(KeyboardInterrupt):
        simulate(small, out=out, cache=cache, on_round=stop_at_once)
    command = ["run", "--resume", "--out", str(out), "--cache", str(cache)]
    assert main([*command, "--set", "client.batch_size=3"]) == 2
    assert "another experiment" in capsys.readouterr().err
    assert main([*command, "--set", "server.round_timeout=900"]) == 0
    found = RunFolder(out).summary()
    assert found
    assert found.model_sha256 == simulate(small, cache=cache).summary.model_sha256


def test_a_study_goes_on_with_another_limit_of_waiting(cache: Path, tmp_path: Path) -> None:
    study = ["compare", "--preset", "smoke", "--set", "server.rounds=1", "--cache", str(cache)]
    study += ["--architectures", "cifg", "--client-learning-rates", "1", "--out", str(tmp_path)]
    assert main(study) == 0
    (summary,) = tmp_path.rglob("summary.json")
    before = summary.stat().st_mtime_ns
    assert main([*study, "--resume", "--set", "server.round_timeout=900"]) == 0
    assert summary.stat().st_mtime_ns == before  # nothing was run again


def test_a_kill_while_a_file_is_replaced_leaves_a_run_that_goes_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = load_preset("smoke").updated({"server.rounds": 2})
    with pytest.raises(KeyboardInterrupt):
        simulate(small, out=tmp_path, cache=cache, on_round=stop_at_once)

    def killed(_folder: RunFolder, hashes: dict[str, str]) -> None:
        if "provenance.json" in hashes:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_list", killed)
        with pytest.raises(SystemExit):  # the file has been written, and its hash has not
            simulate(small, out=tmp_path, cache=cache, resume=True, workers=2)
    assert simulate(small, out=tmp_path, cache=cache, resume=True).summary.rounds == 2
