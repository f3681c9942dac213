"""Steps of many clients at once against steps of one after another."""

from typing import Any

import numpy as np
import pytest
import torch

from fedsi.experiment import ClientSettings
from fedsi.learning.algorithms.algorithm import NO_PULL, Pull
from fedsi.learning.step_by_autograd import GeneralSgd
from fedsi.learning.step_vectorised import Member, VectorisedSgd
from fedsi.models.model import Model
from fedsi.models.table import ARCHITECTURES
from fedsi.tasks.task import Batch
from tests.contracts.test_architectures import entry
from tests.fedsi.learning.test_step_by_hand import batch_of

SETTINGS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1, "relative_clip": 0.02},
    {"optimizer": "adamw", "weight_decay": 0.1, "gradient_clip": 0.05},
    {"optimizer": "muon", "weight_decay": 0.1, "momentum": 0.6},
]
RATE = 0.05


def client(more: dict[str, Any], lanes: int = 8) -> ClientSettings:
    return ClientSettings(step="vectorised", lanes=lanes, learning_rate=RATE, batch_size=4, **more)


def batches_of(number: int, steps: int) -> list[Batch]:
    """Return batches of different shapes, some of them with fewer rows."""
    lengths = [[5, 3, 3, 1], [4, 2], [6, 1, 1], [2]]
    return [batch_of(lengths[(number + k) % 4], 100 * number + k) for k in range(steps)]


def one_after_another(
    model: Model, settings: ClientSettings, start: torch.Tensor, member: Member
) -> tuple[torch.Tensor, float, int]:
    """Return a client's parameters, loss and clipped steps by the general step."""
    own = start.clone()
    sgd = GeneralSgd(model, settings, own)
    sgd.optimizer.begin(RATE)
    loss = sum(sgd.step(batch, member.pull)[0] for batch in member.batches)
    return own, loss, sgd.clipped


def start_of(model: Model, dtype: torch.dtype) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return (torch.randn(model.layout.size, generator=draws, dtype=torch.float64) * 0.5).to(dtype)


@pytest.mark.parametrize("more", SETTINGS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_ten_steps_are_those_of_one_client_after_another(name: str, more: dict[str, Any]) -> None:
    model, settings = entry(name), client(more)
    start = start_of(model, torch.float64)
    pulls = [NO_PULL, Pull(0.3), Pull(0.1, np.linspace(-1, 1, len(start), dtype=np.float32))]
    members = [
        Member.of(batches_of(k, steps), pull, model.longest)
        for k, (steps, pull) in enumerate(zip([10, 3, 1], pulls, strict=True))
    ]
    sgd = VectorisedSgd(model, settings, start)
    counts = sgd.train(start, members, RATE)
    for lane, member in enumerate(members):
        expected, loss, clipped = one_after_another(model, settings, start, member)
        moved = float((expected - start).norm())
        assert float((sgd.parameters[lane] - expected).norm()) <= 1e-9 * moved
        assert counts.loss[lane] == pytest.approx(loss, rel=1e-9)
        assert counts.clipped[lane] == clipped
    assert torch.equal(sgd.parameters[3:], start.expand(5, -1))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_float32_it_is_no_further_from_the_truth(name: str) -> None:
    model, settings = entry(name), client({})
    member = Member.of(batches_of(1, 10), NO_PULL, model.longest)
    exact, start = start_of(model, torch.float64), start_of(model, torch.float32)
    truth, _, _ = one_after_another(model, settings, exact, member)
    ours = VectorisedSgd(model, settings, start)
    ours.train(start, [member], RATE)
    theirs, _, _ = one_after_another(model, settings, start, member)
    distances = [float((one.double() - truth).norm()) for one in (ours.parameters[0], theirs)]
    assert distances[0] <= 4 * distances[1]


@pytest.mark.parametrize("name", ["cifg", "si_transformer"])
def test_the_bits_of_a_lane_do_not_depend_on_the_others(name: str) -> None:
    model, settings = entry(name), client({"gradient_clip": 0.1})
    start = start_of(model, torch.float32)
    members = [Member.of(batches_of(k, 1 + k % 3), NO_PULL, model.longest) for k in range(8)]
    sgd = VectorisedSgd(model, settings, start)
    sgd.train(start, members, RATE)
    together = sgd.parameters.clone()
    sgd.train(start, members[::-1], RATE)
    assert torch.equal(sgd.parameters.flip(0), together)
    sgd.train(start, [members[5]], RATE)
    assert torch.equal(sgd.parameters[0], together[5])
