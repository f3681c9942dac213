"""Flower's run configuration is one experiment, and how to run it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from flwr.common.config import flatten_dict, fuse_dicts, parse_config_args

from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from server.app import RESULT, SUMMARY
from server.app import app as server_app
from server.configuration import RunConfiguration
from simulations import simulate
from simulations.engines.in_process import InProcessGrid
from simulations.presets import load_preset

ROOT = Path(__file__).parents[2]


def as_flower_reads(words: str) -> dict[str, Any]:
    """Return the configuration of a run with ``--run-config WORDS``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    defaults = flatten_dict(project["tool"]["flwr"]["app"]["config"])
    fused: dict[str, Any] = fuse_dicts(defaults, parse_config_args([words]))
    return fused


def test_the_printed_command_has_the_bits_of_fedsi_run_and_shows_its_rounds(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tutorial = (ROOT / "docs/tutorial.md").read_text()
    (words,) = re.findall(r'^flwr run \. --stream --run-config "(.*)"$', tutorial, re.MULTILINE)
    smoke = load_preset("smoke").updated({"server.rounds": 2})
    (tmp_path / "my.toml").write_text(smoke.to_toml())
    config = as_flower_reads(words.replace("$PWD", str(tmp_path)))
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    with InProcessGrid(prepare(smoke.data, cache)) as grid:
        server_app(grid, context)
    shown = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in shown] == ["round 1 of 2", "round 2 of 2"]
    assert ", 10 clients, " in shown[1]
    summary = json.loads(str(context.state.config_records[RESULT][SUMMARY]))
    assert summary["model_sha256"] == simulate(smoke, cache=cache).summary.model_sha256
    written = json.loads((tmp_path / "results/flower/summary.json").read_text())
    assert written["model_sha256"] == summary["model_sha256"]


def test_nothing_given_is_what_fedsi_runs_without_a_file() -> None:
    assert RunConfiguration.from_flower({}) == RunConfiguration(Experiment())


def test_text_and_seed() -> None:
    text = r"""experiment="server.rounds=10\nmodel.architecture='cifg'\nseed=1" seed=2"""
    found = RunConfiguration.from_flower(as_flower_reads(text)).experiment
    assert found == Experiment().updated(
        {"server.rounds": 10, "model.architecture": "cifg", "seed": 2}
    )


def test_it_comes_back_from_flower_as_it_was() -> None:
    run = RunConfiguration(load_preset("smoke"), Path("/a"), resume=True, workers=2)
    assert RunConfiguration.from_flower(run.to_flower()) == run


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"experiment": 3}, "expected TOML text or the path of a .toml file"),
        ({"experiment": "my"}, "the run configuration's experiment is not valid TOML"),
        ({"experiment": "/no/such.toml"}, "cannot read the experiment /no/such.toml"),
        ({"experiment": "server.round=3"}, "there is no key server.round; did you mean"),
        ({"seed": "x"}, "seed = 'x' is not allowed"),
        ({"run.resume": "false"}, "run.resume = 'false' is not allowed: expected true or false"),
        ({"server.rounds": 3}, "there is no key server.rounds"),
    ],
)
def test_what_it_refuses(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        RunConfiguration.from_flower(config)


def test_a_file_does_not_choose_code_without_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange_flower_model.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    experiment = tmp_path / "its.toml"
    experiment.write_text("model.architecture = 'strange_flower_model:Gru'")
    with pytest.raises(UserError, match=r"allow it to run with run\.trust=true"):
        RunConfiguration.from_flower({"experiment": str(experiment)})
    trusted = RunConfiguration.from_flower({"experiment": str(experiment), "run.trust": True})
    assert trusted.experiment.model.is_imported
