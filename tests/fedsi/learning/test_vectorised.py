"""Blocks whose clients train at once against blocks that train one after another."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedsi import Experiment, UserError, accelerator
from fedsi.client_states import ClientStates
from fedsi.learning.algorithms.scaffold import CHANGE
from fedsi.learning.block import BlockTrainer
from fedsi.learning.client_round import Kept
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import initial_parameters
from fedsi.models.table import ARCHITECTURES
from fedsi.sums.fixed_point import decode
from simulations import simulate
from simulations.cli.main import main
from simulations.presets import load_preset
from tests.contracts.test_architectures import entry
from tests.fedsi.learning.test_block import CLIPPED, EXPERIMENT, HEALTHY, Faulty

VECTORISED = {"client.step": "vectorised", "client.lanes": 4}
CLIENTS = [0, 1, 4, 5, 6, 7, 8, 9, 10, 11]
OUTCOME = TRAINING_COLUMNS.index("outcome")


@pytest.fixture
def several_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor train as many clients at once as a GPU."""
    monkeypatch.setattr(accelerator, "lanes", lambda _device, asked: asked)


def both(experiment: Experiment) -> tuple[BlockTrainer, BlockTrainer]:
    return BlockTrainer(experiment, HEALTHY), BlockTrainer(experiment.updated(VECTORISED), HEALTHY)


@pytest.mark.parametrize(
    ("base", "more", "clip_norm"),
    [
        (EXPERIMENT, {}, np.inf),
        (EXPERIMENT, {"algorithm.name": "fed_prox", "algorithm.mu": 0.1}, np.inf),
        (EXPERIMENT, {"server.averaging": "uniform", "server.norm_bound": 0.1}, np.inf),
        (EXPERIMENT, {"client.optimizer": "adamw", "client.learning_rate": 0.01}, np.inf),
        (CLIPPED, {}, 0.1),
        (CLIPPED, {"privacy.clipping": "per_layer"}, 0.1),
    ],
)
@pytest.mark.usefixtures("several_lanes")
def test_a_block_is_that_of_clients_one_by_one(
    base: Experiment, more: dict[str, Any], clip_norm: float
) -> None:
    slow, fast = both(base.updated(more))
    start = initial_parameters(slow.model, 0)
    expected, sums = np.zeros((2, len(start)), np.int64)
    rows = slow.train(start, CLIENTS, 2, expected, clip_norm)
    found = fast.train(start, CLIENTS, 2, sums, clip_norm)
    assert found == pytest.approx(rows, rel=1e-4)
    assert rows[:, OUTCOME].tolist() == [Outcome.AGGREGATED] * len(CLIENTS)
    difference = np.linalg.norm(decode(sums) - decode(expected))
    assert difference <= 1e-5 * np.linalg.norm(decode(expected))


@pytest.mark.usefixtures("several_lanes")
def test_clients_keep_their_vectors(tmp_path: Path) -> None:
    scaffold = EXPERIMENT.updated(
        {"algorithm.name": "scaffold", "server.averaging": "uniform", "server.optimizer": "sgd"}
    )
    kept = []
    for name, trainer in zip(("slow", "fast"), both(scaffold), strict=True):
        start = initial_parameters(trainer.model, 0)
        control = np.linspace(-1e-2, 1e-2, len(start), dtype=np.float32)
        returned = {CHANGE: np.zeros(len(start), np.int64)}
        (tmp_path / name).mkdir()
        states = Kept(ClientStates(tmp_path / name), dict.fromkeys(CLIENTS, 0))
        trainer.train(
            start, CLIENTS, 1, np.zeros(len(start), np.int64), sent={"control": control},
            returned=returned, kept=states,
        )  # fmt: skip
        read = states.states.read(CLIENTS[3], 1, ("control",), len(start))
        kept.append((read["control"], decode(returned[CHANGE])))
    for slow, fast in zip(*kept, strict=True):
        assert np.linalg.norm(fast - slow) <= 1e-4 * np.linalg.norm(slow)


def test_bits_depend_neither_on_the_block_nor_on_the_order() -> None:
    _, trainer = both(EXPERIMENT)
    start = initial_parameters(trainer.model, 0)
    whole, parts = np.zeros((2, len(start)), np.int64)
    rows = trainer.train(start, CLIENTS, 1, whole)
    for part in (CLIENTS[7:], CLIENTS[:1], CLIENTS[1:7]):
        trainer.train(start, part, 1, parts)
    assert np.array_equal(whole, parts)
    again = np.zeros_like(whole)
    assert np.array_equal(trainer.train(start, CLIENTS[::-1], 1, again), rows[::-1])
    assert np.array_equal(again, whole)


@pytest.mark.usefixtures("several_lanes")
def test_clients_that_fail_or_have_nothing_cost_their_own_contribution() -> None:
    trainer = BlockTrainer(EXPERIMENT.updated(VECTORISED), Faulty())
    start = initial_parameters(trainer.model, 0)
    sums, without = np.zeros((2, len(start)), np.int64)
    rows = trainer.train(start, [0, 2, 3, 1], 1, sums)
    trainer.train(start, [0, 1], 1, without)
    assert np.array_equal(sums, without)
    assert not rows[1:3, 1:].any()
    assert rows[2, OUTCOME] == Outcome.AGGREGATED


@pytest.mark.usefixtures("several_lanes")
def test_an_update_that_is_not_finite_is_rejected() -> None:
    _, trainer = both(EXPERIMENT.updated({"client.learning_rate": 1e30, "client.epochs": 3}))
    start = initial_parameters(trainer.model, 0)
    sums = np.zeros(len(start), np.int64)
    rows = trainer.train(start, CLIENTS, 1, sums)
    assert not sums.any()
    assert Outcome.AGGREGATED not in rows[:, OUTCOME].tolist()


def test_a_run_has_the_same_bits_for_every_number_of_workers(tmp_path: Path, cache: Path) -> None:
    experiment = load_preset("smoke").updated(VECTORISED)
    hashes = {
        simulate(experiment, cache=cache, workers=workers).summary.model_sha256
        for workers in (1, 2)
    }
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_model_makes_tensors_on_another_device_than_its_parameters(name: str) -> None:
    """PyTorch refuses to combine the stand-in with tensors on the processor."""
    model = entry(name)
    parameters = torch.zeros(model.layout.size, device="meta", requires_grad=True)
    inputs = torch.ones(2, 3, dtype=torch.long, device="meta")
    views = model.layout.views(parameters)
    logits = model.logits(views, model.features(views, inputs))
    (gradient,) = torch.autograd.grad(logits.sum(), parameters)
    assert gradient.device.type == "meta"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"client.device": "cuda"}, "set client.step=vectorised"),
        ({"client.lanes": 4}, "client.lanes=4 has no effect with client.step=one_by_one"),
        ({**VECTORISED, "client.precision": "bfloat16"}, "leave one of them out"),
        (
            {**VECTORISED, "algorithm.name": "central", "server.optimizer": "sgd",
             "server.learning_rate": 1.0},
            "has no clients to train at once",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_it_is_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        EXPERIMENT.updated(more)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"client\.device=cuda needs an NVIDIA GPU"):
        accelerator.use("cuda")
    assert accelerator.fastest() == "cpu"


def test_the_option_says_what_it_took(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerator, "fastest", lambda: "cpu")
    where = ["--out", str(tmp_path / "run"), "--cache", str(cache)]
    assert main(["run", "--preset", "smoke", "--device", "auto", *where]) == 0
    assert "clients are trained on: cpu" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["run", "--preset", "smoke", "--device", "cuda", *where, "--overwrite"]) == 2
    assert "client.device=cuda needs an NVIDIA GPU" in capsys.readouterr().err
