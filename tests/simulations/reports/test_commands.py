"""The commands on pages: pasted into a shell they give the same experiment, study and model."""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment
from fedsi.kernels.cpu.product_choice import usual_products
from server.runs.folder import RunFolder
from simulations.cli import studies
from simulations.cli.main import main
from simulations.presets import load_preset, preset_names
from simulations.reports.commands import audit_command, run_command, study_command
from simulations.studies.axes import Axis
from simulations.studies.ready import ready_names, ready_study
from simulations.studies.study import Study


@dataclass
class AskedError(Exception):
    what: Any


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(asked: Any, *_: object, **__: object) -> None:
        raise AskedError(asked)

    monkeypatch.setattr("simulations.simulation.simulate", refuse)
    monkeypatch.setattr(studies, "carry_out", refuse)


def asked_by(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the experiment or the study of a command, as a shell would run it in a folder."""
    monkeypatch.chdir(folder)
    if command.startswith("cat"):
        written, _, command = command.rpartition("\n")
        subprocess.run(written, shell=True, check=True)
    with pytest.raises(AskedError) as found:
        main(shlex.split(command.replace("\\\n", ""))[1:])
    return found.value.what


EXPERIMENTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a few": {"seed": 3, "server.rounds": 7, "server.learning_rate": 0.30000000000000004},
    "odd texts": {"data.user_column": "the user's $HOME", "data.corpus": "0"},
    "an architecture": {"model.architecture": "transformer", "model.positions": "none"},
    "private": {
        "privacy.mechanism": "gaussian", "privacy.noise_multiplier": 1.0,
        "server.sampling": "poisson", "server.averaging": "uniform",
    },
    "an own model": {
        "model.architecture": "my_module:Net", "model.arguments.width": 8,
        "model.arguments.kind": "true", "model.arguments.deep": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_command_of_a_run_gives_its_experiment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment().updated(EXPERIMENTS[name])
    assert asked_by(run_command(experiment), tmp_path, monkeypatch) == experiment


@pytest.mark.parametrize("name", preset_names())
def test_the_command_of_a_preset_names_it(name: str) -> None:
    experiment = load_preset(name)
    *words, named = shlex.split(run_command(experiment))
    assert words == ["fedsi", "run", "--preset"]
    assert load_preset(named) == experiment  # two presets may be the same, on two corpora
    command = run_command(experiment.updated({"seed": 9}))
    assert command == f"fedsi run --preset {named} --set seed=9"


def test_products_are_named_if_such_a_processor_does_not_choose_them() -> None:
    """A run's experiment states its products, and its command only unusual ones."""
    usual = usual_products()
    other = {"own": "torch", "torch": "own"}[usual]
    plain, changed = (
        run_command(load_preset("smoke").updated({"client.products": products}))
        for products in (usual, other)
    )
    assert plain == "fedsi run --preset smoke"
    assert changed == f"{plain} --set client.products={other}"


def test_the_command_of_an_audit_gives_its_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = load_preset("audit").updated({"seed": 4})
    assert audit_command(experiment) == "fedsi audit --preset audit --set seed=4"
    assert asked_by(audit_command(experiment), tmp_path, monkeypatch) == experiment


COMMANDS = {
    "compare": [],
    "compare more": [
        "compare", "--preset", "smoke", "--architectures", "gru,cifg", "--seeds", "3",
        "--client-learning-rates", "0.1,10", "--vary", "server.learning_rate=0.01,0.1",
    ],
    "compare server rates": [
        "compare", "--preset", "smoke", "--server-learning-rates", "0.01,0.1", "--vary",
        "client.batch_size=4,8",
    ],
    "tradeoff rates": [
        "tradeoff", "--preset", "privacy_quickstart", "--server-learning-rates", "0.01,0.1",
        "--client-learning-rates", "1",
    ],
    "tradeoff": ["tradeoff", "--preset", "privacy_quickstart"],
    "tradeoff more": [
        "tradeoff", "--preset", "privacy_quickstart", "--noise-multipliers", "0,0.5", "--set",
        "seed=2", "--vary", "privacy.clip_norm=0.1,1",
    ],
    "tradeoff of the defaults": [
        "tradeoff", "--set", "privacy.mechanism=gaussian", "--set", "server.sampling=poisson",
        "--set", "server.averaging=uniform", "--target-epsilons", "8,inf",
    ],
    "tradeoff of starts": [
        "tradeoff", "--preset", "private_tuning", "--compare", "model.init_from=none,a/public",
        "--target-epsilons", "inf,8", "--seeds", "3",
    ],
    "lengths": [],
    "lengths more": ["lengths", "--positions", "fire,alibi", "--lengths", "20,40", "--seeds", "1"],
    "sweep": [
        "sweep", "--preset", "smoke", "--vary", "data.corpus=a,b", "--vary",
        "client.batch_size=4,8", "--vary", "client.gradient_clip=none,1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_of_a_study_gives_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = COMMANDS[name] or [name]
    study = asked_by(shlex.join(["fedsi", *words]), tmp_path, monkeypatch).located(Path.cwd())
    command = study_command(study)
    assert command.startswith(f"fedsi {words[0]} ")
    assert asked_by(command, tmp_path, monkeypatch) == study


def test_a_study_without_a_short_form_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = Axis(key="client.learning_rate", low=0.1, high=10.0)
    halving = Study(
        name="mine",
        experiment=load_preset("smoke").updated({"seed": 2, "server.rounds": 40}),
        axes=(rates, Axis(key="data.user_column", values=("it's", "a,b"))),
        tune=("client.learning_rate",),
        design="halving",
        draws=4,
    )
    text = study_command(halving)
    assert 'preset = "smoke"' in text
    assert asked_by(text, tmp_path, monkeypatch) == halving
    for name in ready_names():
        changed = ready_study(name).updated(target=3.0)
        assert asked_by(study_command(changed), tmp_path, monkeypatch) == changed


def test_the_command_gives_the_same_model_in_an_empty_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    small = ["--preset", "smoke", "--set", "server.rounds=2", "--cache", str(cache)]
    assert main(["run", *small, "--out", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run/report.html").read_text()
    (command,) = [c for c in page.split("<pre>") if c.startswith("fedsi run")]
    words = shlex.split(command.partition("</pre>")[0].replace("\\\n", ""))[1:]
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert main([*words, "--cache", str(cache)]) == 0
    (again,) = (empty / "results").iterdir()
    first, second = RunFolder(tmp_path / "run").summary(), RunFolder(again).summary()
    assert first is not None
    assert second is not None
    assert first.model_sha256 == second.model_sha256
