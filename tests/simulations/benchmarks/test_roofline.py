"""The useful arithmetic of a step, and its share of the best product."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedsi.experiment import ModelSettings
from fedsi.models.recurrent import Recurrent
from fedsi.models.transformer import Transformer
from fedsi.tasks import next_word
from simulations.benchmarks import (
    roofline,
)
from simulations.cli.main import main


def test_a_step_owes_the_products_of_real_positions() -> None:
    settings = ModelSettings(architecture="cifg", embedding_size=3, hidden_size=5)
    model = Recurrent(settings, 11)
    # Sentences of 3 and 1 targets: positions of the first word have no recurrent product.
    batch = next_word.batch(np.array([[2, 5, 6, 3], [2, 7, 0, 0]], np.int32))
    products = 4 * 3 * 15 + 2 * 5 * 15 + 4 * 5 * 3 + 4 * 3 * 11
    assert roofline.useful_flops(model, batch) == 6 * products


def test_a_transformers_step_owes_what_a_query_may_see() -> None:
    settings = ModelSettings(
        architecture="transformer", embedding_size=4, heads=2, layers=3, feedforward_size=7
    )
    batch = next_word.batch(np.array([[2, 5, 6, 3], [2, 7, 0, 0]], np.int32))
    block = 4 * (4 * 4 * 4 + 2 * 4 * 7) + 2 * (1 + 2 + 3 + 1) * 4
    products = 3 * block + 4 * 4 * 11
    assert roofline.useful_flops(Transformer(settings, 11), batch) == 6 * products


@pytest.mark.slow
def test_a_roofline_is_measured_and_drawn(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--corpus", "synthetic", "--sizes", "0.05M", "--architectures", "cifg,transformer"]
    counts = ["--clients", "1", "--repeats", "2", "--cache", str(cache)]
    assert main(["bench", "roofline", *sizes, *counts, "--out", str(tmp_path), "--json"]) == 0
    for measured in json.loads(capsys.readouterr().out):
        assert 0 < measured["gflops"] < measured["sgemm_gflops"]
        assert measured["share"] == pytest.approx(measured["gflops"] / measured["sgemm_gflops"])
        assert 0.1 < measured["output"] < 1 - measured["sequence"] < 0.97
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".md", ".png", ".svg"}
    assert "CIFG 0.05M" in (tmp_path / "roofline.md").read_text()
