"""Comparisons with other frameworks: what is timed, and that the weights agree."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsi.experiment import Experiment
from fedsi.learning.client import LocalTrainer
from fedsi.models.build import build_model
from fedsi.tasks import next_word
from simulations.benchmarks.peers import measure
from simulations.benchmarks.peers.natural import NaturalModel
from simulations.cli.main import main

FAKE_PEER = """
import json, shutil, sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
for _ in sys.stdin:
    print(json.dumps({"seconds": 5.0}), flush=True)
weights = np.load(folder / "fedsi.npy")
np.save(folder / "pfl.npy", weights + %s)
"""


@pytest.mark.parametrize(
    ("peer", "code", "expected"),
    [
        (FAKE_PEER % "0", 0, ""),
        (FAKE_PEER % "1e-5", 1, "of their change in training; rounding explains"),
        ("print('no')", 1, "pfl did not say how long a round took"),
    ],
)
def test_peers_are_timed_and_their_weights_compared(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    peer: str,
    code: int,
    expected: str,
) -> None:
    script = tmp_path / "peer.py"
    script.write_text(peer)
    monkeypatch.setitem(measure.SCRIPTS, "pfl", script)
    options = ["--pfl-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "3"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out"), "--json"]
    assert main(["bench", "peers", *options, *counts, *places]) == code
    captured = capsys.readouterr()
    assert expected in captured.err
    if code:
        assert not (tmp_path / "out").exists()
        return
    (measured,) = json.loads(captured.out)
    assert measured["ratio"] > 1
    assert measured["peer_clients_per_second"] == pytest.approx(2 / 5)
    assert measured["difference"] == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"peers.csv", "peers.md", "peers.png", "peers.svg"}


@pytest.mark.slow
def test_weights_that_differ_as_by_rounding_agree(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "peer.py"
    script.write_text(FAKE_PEER % "1e-10")
    monkeypatch.setitem(measure.SCRIPTS, "pfl", script)
    monkeypatch.setattr(measure, "LARGEST_DIFFERENCE", 0.0)
    options = ["--pfl-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "2"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out"), "--json"]
    assert main(["bench", "peers", *options, *counts, *places]) == 0
    (measured,) = json.loads(capsys.readouterr().out)
    assert 0 < measured["difference"] < 1e-6


def test_flower_has_a_report_of_its_own(
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = tmp_path / "peer.py"
    script.write_text((FAKE_PEER % "0").replace("pfl.npy", "flower.npy"))
    monkeypatch.setitem(measure.SCRIPTS, "flower", script)
    options = ["--flower-python", sys.executable, "--corpus", "synthetic", "--sizes", "0.05M"]
    counts = ["--architectures", "cifg", "--cohort", "2", "--rounds", "2"]
    places = ["--cache", str(cache), "--out", str(tmp_path / "out")]
    assert main(["bench", "flower", *options, *counts, *places]) == 0
    assert "simulation," in capsys.readouterr().out
    assert (tmp_path / "out" / "flower.csv").exists()
    assert main(["bench", "flower", "--flower-python", "none/python"]) == 2
    assert "pip install 'flwr[simulation]" in capsys.readouterr().err


def test_a_peer_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "--pfl-python", "none/python"]) == 2
    assert "pip install 'pfl[pytorch]" in capsys.readouterr().err
    known = ["--pfl-python", sys.executable, "--sizes", "9M"]
    assert main(["bench", "peers", *known]) == 2
    assert "there is no size 9M" in capsys.readouterr().err
    known = ["--pfl-python", sys.executable, "--architectures", "cifg,lstm"]
    assert main(["bench", "peers", *known]) == 2
    assert "there is no model lstm; choose from cifg, si_cifg, si_t" in capsys.readouterr().err


@pytest.mark.parametrize("architecture", measure.ARCHITECTURES)
def test_the_natural_module_is_the_model(architecture: str) -> None:
    experiment = measure.experiment_for(Experiment(), architecture, "0.05M", 2, 2)
    model = build_model(experiment, 50)
    start = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(0)) * 0.3
    heads = experiment.model.heads
    module = NaturalModel(model.layout.views(start.clone()), architecture, heads)
    assert np.array_equal(module.flat(), start.numpy())
    rows = np.random.default_rng(0).integers(1, 50, (4, 9)).astype(np.int32)
    rows[1, 5:] = 0
    loss = module.loss(torch.from_numpy(rows).long())
    optimizer = torch.optim.SGD(module.parameters(), lr=experiment.client.learning_rate)
    loss.backward()
    optimizer.step()
    trainer = LocalTrainer(model, experiment.client)
    trainer.begin(start)
    result = trainer.train([next_word.batch(rows)])
    assert result.loss / result.tokens == pytest.approx(loss.item(), rel=1e-5)
    moved = float((trainer.parameters - start).norm())
    apart = float((torch.from_numpy(module.flat()) - trainer.parameters).norm())
    assert apart < 1e-4 * moved
