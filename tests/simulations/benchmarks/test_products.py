"""The table of matrix products, which is what ``client.products=fastest`` decides by."""

import json
from pathlib import Path

import pytest

from fedsi import Experiment
from fedsi.kernels.cpu import product_choice
from server.products import decided
from simulations.benchmarks.peers.measure import experiment_for
from simulations.cli.main import main


def test_products_are_measured_once_and_decide(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_choice, "usual_products", lambda: "own")
    model = ["--architectures", "cifg", "--sizes", "0.05M", "--cache", str(tmp_path / "cache")]
    told = []
    for _ in range(2):
        command = ["bench", "products", *model, "--json", "--out", str(tmp_path / "out")]
        assert main(command) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1], "the second one reads the first one's file"
    *products, whole = told[0]
    for kind in ("own", "torch"):
        assert whole[kind] == pytest.approx(sum(one[kind] for one in products))
    assert whole["faster"] == ("own" if whole["own"] <= whole["torch"] else "torch")
    measured = experiment_for(
        Experiment().updated({"data.corpus": "synthetic"}), "cifg", "0.05M", 1, 1
    )
    asked = measured.updated({"client.products": "fastest"})
    assert decided(asked, cache=tmp_path / "cache").client.products == whole["faster"]
    assert "all of a step" in (tmp_path / "out" / "products.md").read_text()
