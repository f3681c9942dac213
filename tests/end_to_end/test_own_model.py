"""A user's model from end to end: the same bits on any number of workers, resumed, refused."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.models.build import build_model, initial_parameters
from fedsi.models.user_model import UserModel
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.finished_run import open_run
from tests.own_models import Adapter, Gru
from tests.test_docs import ROOT, fenced

PAGE = "docs/own-model.md"


@pytest.fixture
def own(smoke: Experiment) -> Experiment:
    return smoke.updated({"model.architecture": "tests.own_models:Gru", "server.rounds": 6})


class StopError(Exception):
    """An error that ends a run early."""


def stop_after_three(_experiment: Experiment, record: RoundRecord) -> None:
    if record.round == 3:
        raise StopError


def test_it_learns_and_two_workers_resume_it_with_the_same_bits(
    own: Experiment, cache: Path, tmp_path: Path
) -> None:
    whole = simulate(own, out=tmp_path / "whole", cache=cache)
    records = RunFolder(tmp_path / "whole").records()
    losses = [record.heldout["loss"] for record in records if record.heldout]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.1
    with pytest.raises(StopError):
        simulate(own, out=tmp_path / "r", cache=cache, on_round=stop_after_three)
    resumed = simulate(own, out=tmp_path / "r", cache=cache, workers=2, resume=True)
    assert resumed.summary.model_sha256 == whole.summary.model_sha256
    assert resumed.summary.heldout_loss == whole.summary.heldout_loss
    assert whole.summary.architecture == "tests.own_models:Gru"
    module = Gru(whole.summary.vocabulary_size)
    module.load_state_dict(whole.parameters)
    assert sum(p.numel() for p in module.parameters()) == whole.summary.parameters
    assert torch.equal(module.output.bias, resumed.parameters["output.bias"])


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("tests.own_models:dropout", "set its dropout to 0"),
        (
            "tests.own_models:last_position",
            "return logits [batch, time, vocabulary], here [2, 12, 204]",
        ),
        ("tests.own_models:without_parameters", "there is nothing to train"),
        ("tests.own_models:missing", "has no missing"),
        ("surely_missing:gru", "there is no module surely_missing"),
        ("__main__:gru", "put gru into a separate file"),
        ("my_model.py:gru.x", "my_package.my_module:name"),
    ],
)
def test_bad_models_are_one_sentence(
    architecture: str,
    expected: str,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["run", "--preset", "smoke", "--set", f"model.architecture={architecture}"]
    assert main([*command, "--cache", str(cache), "--out", str(tmp_path / "r")]) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "r").exists()


def test_a_comparison_refuses_a_bad_model_before_it_runs(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "--preset", "smoke", "--architectures", "cifg,tests.own_models:dropout"]
    assert main([*command, "--cache", str(cache), "--out", str(tmp_path / "c")]) == 2
    assert "set its dropout to 0" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.fixture
def adapter(smoke: Experiment) -> Experiment:
    return smoke.updated({"model.architecture": "tests.own_models:Adapter", "server.rounds": 2})


NOISY = {
    "privacy.mechanism": "gaussian",
    "privacy.noise_multiplier": 1.0,
    "server.averaging": "uniform",
    "server.sampling": "poisson",
}


@pytest.mark.parametrize(
    "privacy",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param(NOISY, marks=pytest.mark.slow),
        {**NOISY, "privacy.clipping": "per_layer"},
    ],
)
def test_frozen_parameters_are_kept_and_neither_trained_nor_given_noise(
    adapter: Experiment, cache: Path, tmp_path: Path, privacy: dict[str, object]
) -> None:
    experiment = adapter.updated(privacy)
    one = simulate(experiment, out=tmp_path / "r", cache=cache)
    two = simulate(experiment, cache=cache, workers=2)
    assert one.summary.model_sha256 == two.summary.model_sha256
    size = one.summary.vocabulary_size
    assert one.summary.trained_parameters == 2 * 2 * 8
    assert one.summary.parameters == size * 8 + 2 * 2 * 8
    model = build_model(experiment, size)
    assert one.parameters["base.weight"].equal(model.frozen["base.weight"])
    start = model.layout.views(initial_parameters(model, experiment.seed))
    assert not one.parameters["up.weight"].equal(start["up.weight"])
    opened = open_run(tmp_path / "r", trust=True)
    assert opened.trained.parameters["up.weight"].equal(one.parameters["up.weight"])
    module = Adapter(size)
    module.load_state_dict(one.parameters, strict=False)
    assert module.base.weight.equal(model.frozen["base.weight"])


def test_a_base_that_is_another_one_now_is_one_sentence(
    adapter: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(adapter, out=tmp_path / "r", cache=cache)
    changed = UserModel.frozen.fget(  # type: ignore[attr-defined]
        build_model(adapter.updated({"seed": 1}), 204)
    )
    monkeypatch.setattr(UserModel, "frozen", changed)
    with pytest.raises(UserError, match=r"parameter base\.weight of .* has other values now"):
        open_run(tmp_path / "r", trust=True)


def test_the_page_is_true(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The page's command and Python code, with the model in the working folder."""
    model, script, notebook, adapter = fenced(PAGE, "python")
    assert len((model + script).splitlines()) < 30
    (tmp_path / "my_model.py").write_text(model + adapter)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        simulate, "__kwdefaults__", {**(simulate.__kwdefaults__ or {}), "cache": cache}
    )
    command, narrow = re.findall(r"^fedsi run .*$", (ROOT / PAGE).read_text(), re.MULTILINE)
    less = ["--set", "server.rounds=2", "--cache", str(cache), "--json"]
    assert main([*shlex.split(command)[1:], *less]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["architecture"] == "my_model:Gru"
    assert main([*shlex.split(narrow)[1:], *less]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] < whole["parameters"]
    command = re.sub("my_model:Gru", "my_model:Adapter", command)
    assert main([*shlex.split(command)[1:], *less]) == 0
    assert json.loads(capsys.readouterr().out)["trained_parameters"] == 2 * 4 * 32
    exec(compile(script, PAGE, "exec"), {})
    heldout, unigram = map(float, capsys.readouterr().out.split())
    assert heldout < unigram
    exec(compile(notebook, PAGE, "exec"), {})
    assert capsys.readouterr().out.startswith("fedsi.model_objects:Bigram ")
