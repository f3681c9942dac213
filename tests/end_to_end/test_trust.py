"""Commands that read a stranger's experiment or run do not run the stranger's code."""

import json
import sys
from pathlib import Path

import pytest

from fedsi import UserError
from simulations.cli.main import main
from simulations.finished_run import open_run
from tests.test_docs import fenced

CHANGES = {
    "model.architecture": "strange_model:Gru",
    "server.rounds": 1,
    "server.cohort_size": 2,
    "server.evaluation_clients": 2,
    "privacy.mechanism": "gaussian",
    "privacy.noise_multiplier": 1.0,
    "privacy.canaries": 50,
    "server.averaging": "uniform",
}


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A folder with a module, an experiment that names it, and a finished run of it."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "strange_model.py").write_text(fenced("docs/own-model.md", "python")[0])
    sets = [word for pair in CHANGES.items() for word in ("--set", "{}={}".format(*pair))]
    command = ["run", "--preset", "smoke", *sets, "--cache", str(cache)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        assert main([*command, "--out", str(folder / "run")]) == 0
        patch.delitem(sys.modules, "strange_model")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["run", "{}/run/experiment.toml", "--out", "r", "--json"],
        ["run", "--resume", "--out", "{}/run", "--json"],
        ["predict", "{}/run", "word3", "--json"],
        ["generate", "{}/run", "--json"],
        ["evaluate", "{}/run", "--json"],
        ["export", "{}/run", "--format", "onnx", "--json", "--out", "model"],
        ["audit", "{}/run", "--json"],
        ["audit", "--experiment", "{}/run/experiment.toml", "--out", "a", "--json"],
    ],
)
def test_they_need_consent(
    command: list[str],
    stranger: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(stranger)
    monkeypatch.delitem(sys.modules, "strange_model", raising=False)
    cached = [] if command[0] in {"predict", "generate", "export"} else ["--cache", str(cache)]
    command = [word.format(stranger) for word in command] + cached
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'strange_model:Gru', whose code is {stranger}/strange_model.py, neither" in line
    assert "strange_model" not in sys.modules
    if command[0] in {"export", "audit"}:
        return  # the one takes long, and PyTorch cannot do the other with a GRU
    assert main([*command, "--trust"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_what_is_typed_is_consent(
    stranger: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(stranger)
    command = ["run", f"{stranger}/run/experiment.toml", "--cache", str(cache), "--out", "r"]
    assert main([*command, "--set", "model.architecture=strange_model:Gru"]) == 0


def test_in_python_too(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(stranger)
    with pytest.raises(UserError, match="--trust"):
        open_run(stranger / "run")
    assert open_run(stranger / "run", trust=True).trained.vocabulary
