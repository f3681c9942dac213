"""Models from a script, function or notebook are trained, and must be given again for later use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from fedsi import Experiment, UserError
from simulations import simulate
from simulations.cli.main import main
from simulations.finished_run import open_run
from tests.own_models import Gru

SCRIPT = """
import json
import sys
from pathlib import Path

from torch import nn

from fedsi import Experiment, UserError
from simulations import simulate
from simulations.finished_run import open_run

folder, cache, experiment = Path(sys.argv[1]), Path(sys.argv[2]), Experiment.from_toml(sys.argv[3])


class Bigram(nn.Module):
    def __init__(self, vocabulary_size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.table, self.scale = nn.Embedding(vocabulary_size, vocabulary_size), scale

    def forward(self, ids):
        return self.table(ids) * self.scale


def made_in_a_function():
    class Failing(Bigram):
        def forward(self, ids):
            raise KeyError("never mind")

    return Failing


def refusal(**arguments):
    try:
        simulate(experiment, cache=cache, **arguments)
    except UserError as error:
        return str(error)


ran = simulate(experiment, model=Bigram, cache=cache, out=folder)
again = simulate(experiment, model=Bigram, cache=cache, out=folder, resume=True)
opened = open_run(folder, model=Bigram)
print(json.dumps({
    "architecture": ran.summary.architecture,
    "same": ran.summary.model_sha256 == again.summary.model_sha256,
    "opened": opened.trained.parameters["table.weight"].equal(ran.parameters["table.weight"]),
    "two workers": refusal(model=Bigram, workers=2),
    "failing": refusal(model=made_in_a_function()),
}))
"""
FAILS = SCRIPT.splitlines().index('            raise KeyError("never mind")') + 1


class Bigram(nn.Module):
    """Is not the run's model."""


@pytest.fixture
def short(smoke: Experiment) -> Experiment:
    return smoke.updated({"server.rounds": 2, "server.cohort_size": 4})


def check(found: dict[str, str | bool], file: str) -> None:
    assert found["architecture"] == "fedsi.model_objects:Bigram"
    assert found["same"]
    assert found["opened"]
    assert found["two workers"] == (
        "workers = 2 is not allowed with a model that other processes cannot import; use "
        "workers=1, or put Bigram into a separate file, such as my_model.py, and set "
        "model.architecture to my_model:Bigram"
    )
    assert str(found["failing"]).startswith("Failing failed on token ids int64 [2, 12]: KeyError: ")
    assert str(found["failing"]).endswith(f"({file}, line {FAILS})")


def test_a_scripts_class_is_trained_and_its_run_needs_it_again(
    short: Experiment, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = tmp_path / "notebook.py", tmp_path / "run"
    file.write_text(SCRIPT)
    command = [sys.executable, str(file), str(run), str(cache), short.to_toml()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout.splitlines()[-1]), str(file))
    with pytest.raises(UserError, match=r"^the model Bigram was an object of the program"):
        open_run(run)
    with pytest.raises(UserError, match="are not those of the model that"):
        open_run(run, model=Gru)
    places = ["--cache", str(cache), "--out", str(run)]
    for words in (
        ["predict", str(run), "word3"],
        ["export", str(run), "--format", "onnx"],
        ["run", "--resume", *places, "--set", "server.rounds=3"],
    ):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the model Bigram was an object of the program" in line
        assert "give it again" in line


def test_so_is_a_cells(
    short: Experiment,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["cell", str(tmp_path / "run"), str(cache), short.to_toml()]
    monkeypatch.setattr(sys, "argv", arguments)
    exec(compile(SCRIPT, "<cell>", "exec"), {"__name__": "__main__"})
    check(json.loads(capsys.readouterr().out.splitlines()[-1]), "<cell>")


def test_a_modules_class_goes_by_its_import_path(
    short: Experiment, cache: Path, tmp_path: Path
) -> None:
    named = simulate(short.updated({"model.architecture": "tests.own_models:Gru"}), cache=cache)
    given = simulate(short, model=Gru, cache=cache, workers=2, out=tmp_path / "run")
    assert given.summary.architecture == "tests.own_models:Gru"
    assert given.summary.model_sha256 == named.summary.model_sha256
    assert open_run(tmp_path / "run", model=Gru, trust=True)
    with pytest.raises(UserError, match=r"the run names its model, tests\.own_models:Gru; leave"):
        open_run(tmp_path / "run", model=Bigram, trust=True)
