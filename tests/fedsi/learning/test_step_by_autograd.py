"""Steps by autograd against steps by hand, and on users' modules against torch.optim."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedsi import Experiment
from fedsi.data.protocol import PAD
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.learning.client import LocalTrainer
from fedsi.learning.step_by_autograd import GeneralSgd
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.build import build_model, initial_parameters
from fedsi.models.recurrent import Recurrent
from tests.fedsi.learning.test_step_by_hand import VOCABULARY, batch_of
from tests.own_models import Gru, Tied

CLIENTS = [
    ClientSettings(learning_rate=0.3),
    ClientSettings(learning_rate=0.3, weight_decay=0.1),
    ClientSettings(learning_rate=0.3, gradient_clip=0.05),
    ClientSettings(learning_rate=0.3, gradient_clip=10.0, weight_decay=0.1),
    ClientSettings(learning_rate=0.3, relative_clip=0.02, weight_decay=0.1),
]


@pytest.mark.parametrize("architecture", ["cifg", "si_cifg"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("client", CLIENTS)
def test_ten_steps_are_those_of_the_gradients_by_hand(
    architecture: str, tied: bool, client: ClientSettings
) -> None:
    settings = ModelSettings(
        architecture=architecture, embedding_size=5, hidden_size=7, tied_output=tied
    )
    model = Recurrent(settings, VOCABULARY)
    draws = torch.Generator().manual_seed(1)
    start = torch.randn(model.layout.size, generator=draws, dtype=torch.float64) * 0.5
    by_hand, general = start.clone(), start.clone()
    fused, ours = FusedSgd(model, client, by_hand), GeneralSgd(model, client, general)
    for step in range(10):
        batch = batch_of([6, 3, 3, 1], step)
        expected_loss, expected_targets = fused.step(batch)
        loss, targets = ours.step(batch)
        assert targets == expected_targets == 13
        assert loss == pytest.approx(expected_loss, rel=1e-10)
        assert ours.clipped == fused.clipped
    moved = float((by_hand - start).norm())
    assert float((general - by_hand).norm()) <= 1e-10 * moved


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", [Gru, Tied])
def test_a_users_module_takes_the_steps_of_torch_optim(
    kind: type[Gru], client: ClientSettings
) -> None:
    path = f"tests.own_models:{kind.__name__}"
    model = build_model(Experiment(model={"architecture": path}), VOCABULARY)
    start = initial_parameters(model, 3)
    module = kind(VOCABULARY)
    for parameter, view in zip(
        module.parameters(), model.layout.views(start).values(), strict=True
    ):
        parameter.data.copy_(view)
    optimizer = torch.optim.SGD(module.parameters(), lr=client.learning_rate)
    batches = [batch_of(lengths, 5) for lengths in ([4, 2], [1], [5, 5, 3])]
    total, clipped = 0.0, 0
    for batch in batches:
        inputs, following = (
            torch.from_numpy(part).long() for part in (batch.inputs, batch.targets)
        )
        loss = functional.cross_entropy(module(inputs).mT, following, ignore_index=PAD)
        total += loss.item() * int((following != PAD).sum())
        optimizer.zero_grad()
        loss.backward()
        if client.gradient_clip is not None:
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), client.gradient_clip)
            clipped += float(norm) > client.gradient_clip
        if client.relative_clip is not None:
            norm = torch.cat([p.detach().flatten() for p in module.parameters()]).norm()
            limit = client.relative_clip * (2 * client.weight_decay / client.learning_rate) ** 0.5
            found = torch.nn.utils.clip_grad_norm_(module.parameters(), limit * float(norm))
            clipped += float(found) > limit * float(norm)
        for parameter in module.parameters():
            parameter.data.mul_(1 - client.learning_rate * client.weight_decay)
        optimizer.step()
    trainer = LocalTrainer(model, client)
    trainer.begin(start)
    result = trainer.train(batches)
    expected = torch.cat([p.detach().flatten() for p in module.parameters()])
    torch.testing.assert_close(trainer.parameters, expected, rtol=0, atol=2e-6)
    assert (result.tokens, result.examples) == (20, 6)
    assert (result.steps, result.clipped_steps) == (3, clipped)
    assert result.loss == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(
    "client",
    [ClientSettings(gradient_clip=1.0), ClientSettings(relative_clip=2.0, weight_decay=0.1)],
)
def test_a_gradient_that_is_not_a_number_is_not_clipped_to_one(client: ClientSettings) -> None:
    model = Recurrent(ModelSettings(embedding_size=3, hidden_size=4), VOCABULARY)
    flat = torch.full((model.layout.size,), np.nan)
    GeneralSgd(model, client, flat).step(batch_of([2], 0))
    assert bool(flat.isnan().any())
