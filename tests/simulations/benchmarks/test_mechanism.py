"""The look into recurrent cells, against cells whose behaviour is known."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from fedsi.experiment import Experiment, ModelSettings
from fedsi.models.recurrent import Recurrent
from simulations.benchmarks.mechanism import cell_activity, main

INPUTS = torch.tensor([[5, 6, 7], [7, 8, 9]])
HIDDEN = 4


def activity(architecture: str, bias: list[float]) -> dict[str, float]:
    """Return the activity of a cell without weights, whose three gates have these biases."""
    settings = ModelSettings(architecture=architecture, embedding_size=3, hidden_size=HIDDEN)
    model = Recurrent(settings, 12)
    named = {name: torch.zeros(shape) for name, shape in model.layout.shapes.items()}
    named["embedding"] += 1
    named["cell.bias"] = torch.tensor(bias).repeat_interleave(HIDDEN)
    return dict(cell_activity(model, named, INPUTS))


def test_a_cell_without_weights_is_its_biases() -> None:
    looked = activity("cifg", [9.0, 0.0, 1.0])
    assert looked["forget gate"] == pytest.approx(torch.sigmoid(torch.tensor(9.0)).item())
    assert (looked["output gate"], looked["open"], looked["closed"]) == (0.5, 1.0, 0.0)
    assert looked["dead units"] == 0
    assert looked["recurrent share"] == 0


def test_units_whose_output_gate_is_shut_are_dead() -> None:
    assert activity("si_cifg", [1.0, -1.0, 1.0])["dead units"] == 1
    assert activity("si_cifg", [-1.0, 1.0, 1.0])["closed"] == 1


@pytest.mark.slow
def test_the_program_writes_a_row_for_each_look(cache: Path, tmp_path: Path) -> None:
    small = {"server.rounds": 2, "model.hidden_size": 8, "model.embedding_size": 8}
    experiment = Experiment(data={"corpus": "synthetic"}).updated(small)
    (tmp_path / "e.toml").write_text(experiment.to_toml())
    arms = ["model.architecture=cifg", "--", "model.architecture=si_cifg"]
    main([str(tmp_path / "e.toml"), str(tmp_path), "1", *arms], cache)
    table = pd.read_csv(tmp_path / "mechanism.csv")
    assert list(table["run"].unique()) == ["architecture=cifg", "architecture=si_cifg"]
    assert list(table["round"]) == [0, 1, 2, 0, 1, 2]
    assert (table["relative step"].dropna() > 0).all()
    assert (tmp_path / "mechanism.png").exists()
