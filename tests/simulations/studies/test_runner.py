"""The processes of a study's trials, and the report of a study in which a trial fails."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.data.vocabulary import WordVocabulary
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from server.runs.lock import held
from simulations import simulate
from simulations.cli.main import main
from simulations.studies import runner
from simulations.studies.measured import measure
from simulations.studies.runner import check_same, run_trials
from simulations.studies.trial_processes import WITHOUT_FORK_SERVER
from tests.processes import children_of

TELLING = """
import builtins, json, os
from pathlib import Path
from tests.own_models import Gru

first = not hasattr(builtins, "mark")
builtins.mark = True
told = [os.getpid(), os.getppid(), first, len(os.listdir("/proc/self/task"))]
with Path("told.jsonl").open("a") as file:
    file.write(json.dumps(told) + "\\n")
"""
SMALL = ["--preset", "smoke", "--set", "server.rounds=3", "--set", "server.evaluate_every=1"]


def dying(monkeypatch: pytest.MonkeyPatch, *dead: str) -> None:
    """Have the processes of some trials killed as soon as they start."""
    start = runner._start

    def started(processes: Any, name: str, *arguments: Any) -> Any:
        running = start(processes, name, *arguments)
        if name in dead:
            running.process.kill()
        return running

    monkeypatch.setattr(runner, "_start", started)


def test_a_study_tells_of_the_trials_that_finished(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", *SMALL, "--client-learning-rates", "1", "--cache", str(cache)]
    command += ["--out", str(out), "--json"]
    with monkeypatch.context() as patch:
        dying(patch, "cifg-lr1-seed0")
        patch.setattr("simulations.engines.ended.oom_kills", lambda: 10**9)  # the kernel's count
        assert main(command) == 1
    printed, said = capsys.readouterr()
    assert "not finished: cifg-lr1-seed0: it ended with code -9" in said
    result = json.loads(printed)
    assert result == json.loads((out / "comparison.json").read_text())
    why = result["not_finished"]["cifg-lr1-seed0"]
    assert "for lack of memory" in why
    assert "--jobs" in why
    assert [place["chosen"] is None for place in result["places"]] == [True, False]
    assert (out / "comparison.png").exists()
    page = (out / "report.html").read_text()
    assert "Not finished, and in none of these numbers: cifg-lr1-seed0" in page
    # It goes on, and then nothing is missing.
    assert main([*command, "--resume"]) == 0
    assert "not_finished" not in json.loads(capsys.readouterr().out)


PRIVATE = ["--set", "privacy.mechanism=gaussian", "--set", "server.sampling=poisson",
           "--set", "server.averaging=uniform"]  # fmt: skip
TRANSFORMER = ["--set", "model.architecture=transformer", "--set", "model.layers=1"]
STUDIES = {
    "tradeoff": ["--noise-multipliers", "0,1", "--architectures", "cifg", "--quick", *PRIVATE],
    "lengths": ["--positions", "none,fire", "--seeds", "1", "--lengths", "12", *TRANSFORMER],
    "sweep": ["--vary", "client.learning_rate=0.3,1", "--vary", "client.epochs=1,2"],
    "study": [],
}
"""A command of each kind of study. Its second trial dies."""


SLOW = {"tradeoff", "lengths"}


@pytest.mark.parametrize(
    "command",
    [pytest.param(one, marks=[pytest.mark.slow] if one in SLOW else []) for one in STUDIES],
)
def test_every_kind_of_study_ends_without_a_trial_that_died(
    command: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The twin of processes: trials run here one after the other, and the second is left out."""

    def run_here(
        trials: dict[str, Experiment], folder: Path, cache: Path, *_: Any, **more: Any
    ) -> dict[str, str]:
        names = list(trials)
        for name in names[:1] + names[2:]:
            simulate(trials[name], out=folder / name, cache=cache)
            measure(folder / name, cache, more["lengths"])
        return {names[1]: "it ended with code -11"}

    monkeypatch.setattr("simulations.studies.run.run_trials", run_here)
    small, out = ["--set", "server.rounds=1"], tmp_path / "out"
    source = ["--preset", "smoke", *small]
    if command == "study":
        text = 'preset = "smoke"\n[[axes]]\nkey = "client.epochs"\nvalues = [1, 2]\n'
        (tmp_path / "own.toml").write_text(text)
        source = [str(tmp_path / "own.toml"), *small]
    words = [command, *source, *STUDIES[command], "--out", str(out), "--cache", str(cache)]
    assert main(words) == 1
    printed, said = capsys.readouterr()
    assert "it ended with code -11" in said.splitlines()[-1]
    assert "Not finished, and in none of these numbers: " in " ".join(printed.split())
    assert "not finished" in printed or command == "lengths"
    (table,) = (path for path in out.glob("*.csv"))
    assert table.with_suffix(".png").stat().st_size > 10_000
    assert len(table.read_text().splitlines()) == {"sweep": 3}.get(command, 1) + 1
    assert "(it ended with code -11)" in (out / "report.html").read_text()
    assert main(["report", str(out)]) == 0
    assert main(["plot", *map(str, (out / "runs").iterdir()), "--out", str(out / "all.png")]) == 0


@pytest.mark.slow
def test_what_an_older_study_left_is_not_taken_for_a_trial_that_died(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", *SMALL, "--client-learning-rates", "1", "--cache", str(cache)]
    command += ["--out", str(out), "--architectures"]
    assert main([*command, "si_cifg,cifg", "--set", "client.batch_size=3"]) == 0
    dying(monkeypatch, "cifg-lr1-seed0")  # before it could remove the older run
    assert main([*command, "si_cifg,cifg", "--overwrite"]) == 1
    runs = json.loads((out / "comparison.json").read_text())["runs"]
    assert [run["model.architecture"] for run in runs] == ["si_cifg"]
    capsys.readouterr()
    assert main([*command, "cifg", "--overwrite"]) == 1
    assert "report:" not in capsys.readouterr().err


def test_trials_are_forked_from_one_process_and_have_the_bits_of_a_run(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "telling_model.py").write_text(TELLING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, ""])  # as a command has it
    changes = {"server.rounds": 1, "model.architecture": "telling_model:Gru"}
    trials = {str(seed): smoke.updated({**changes, "seed": seed}) for seed in (0, 1)}
    folder = tmp_path / "runs"
    assert not run_trials(trials, folder, cache, 2, fresh=True, on_records=lambda *_: None)
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert len({process for process, *_ in told}) == len(trials)
    (server,) = {parent for _, parent, _, _ in told}
    assert server != os.getpid()
    # It has ended, computed nothing, and nothing that one trial left in memory reached another.
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    assert all(first for _, _, first, _ in told)
    # The trial's own, and that which watches stdin; a pool of threads would be in both.
    assert min(threads for *_, threads in told) == 2
    summary = RunFolder(folder / "1").summary()
    assert summary
    assert summary.model_sha256 == simulate(trials["1"], cache=cache).summary.model_sha256


@pytest.mark.parametrize("victim", ["trial", pytest.param("fork server", marks=pytest.mark.slow)])
def test_a_process_that_is_killed_is_replaced(
    victim: str, smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    endless = smoke.updated({"server.rounds": 100_000})
    signals = {"killed": signal.SIGKILL, "crashed": signal.SIGSEGV}
    trials = {"killed": endless, "crashed": endless, "next": smoke}
    killed: list[str] = []

    def kill(name: str, records: Sequence[RoundRecord]) -> None:
        if name in signals and records and name not in killed:
            killed.append(name)
            # Ray's head is a child of this process too, where other tests have started it.
            (server,) = (
                one
                for one in children_of(os.getpid())
                if "ray.scripts" not in Path(f"/proc/{one}/cmdline").read_text()
            )
            (trial,) = children_of(server)
            os.kill(trial if victim == "trial" else server, signals[name])

    failures = run_trials(trials, tmp_path, cache, 1, fresh=True, on_records=kill)
    codes = {name: f"it ended with code -{number}" for name, number in signals.items()}
    assert failures.keys() == signals.keys()
    for name, why in failures.items():
        assert why.startswith(codes[name] if victim == "trial" else WITHOUT_FORK_SERVER)
    assert RunFolder(tmp_path / "next").summary()
    with held(tmp_path / "killed"):  # no process works there any more
        pass


def test_a_run_with_other_words_is_refused(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    experiment = smoke.updated({"server.rounds": 1})
    simulate(experiment, out=tmp_path / "trial", cache=cache)
    population = open_population(prepare(experiment.data, cache))
    check_same({"trial": experiment}, tmp_path, lambda _: population)
    words = WordVocabulary(["other", "words"])
    with (
        patch.object(type(population), "vocabulary", lambda _: words),
        pytest.raises(UserError, match="holds a run with another vocabulary"),
    ):
        check_same({"trial": experiment}, tmp_path, lambda _: population)


def test_a_study_over_its_data_goes_on(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    """Each trial has a population of its own, with which its folder is compared."""
    study = tmp_path / "study.toml"
    study.write_text(
        'preset = "smoke"\n[experiment.server]\nrounds = 1\n'
        '[[axes]]\nkey = "data.vocabulary_size"\nvalues = [200, 300]\n'
    )
    options = ["--out", str(tmp_path / "out"), "--cache", str(cache)]
    assert main(["study", str(study), *options]) == 0
    assert main(["study", str(study), *options, "--resume"]) == 0
