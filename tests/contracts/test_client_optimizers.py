"""Contract of all client optimizers: each takes the steps of a slow counterpart."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.experiment import ClientSettings
from fedsi.learning.client import LocalTrainer
from fedsi.learning.optimizers.table import OPTIMIZERS
from fedsi.learning.step_by_autograd import GeneralSgd
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.build import initial_parameters
from fedsi.models.model import Model
from fedsi.models.table import ARCHITECTURES, architecture
from fedsi.tasks.task import Batch
from tests.contracts.test_architectures import VOCABULARY, entry
from tests.fedsi.learning.test_step_by_hand import batch_of, with_gaps


def sgd_twin(leaf: Tensor, client: ClientSettings, _model: Model) -> torch.optim.Optimizer:
    return torch.optim.SGD([leaf], lr=client.learning_rate, weight_decay=client.weight_decay)


def adamw_twin(leaf: Tensor, client: ClientSettings, _model: Model) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [leaf],
        lr=client.learning_rate,
        betas=(client.momentum, client.second_moment_decay),
        eps=client.adaptivity,
        weight_decay=client.weight_decay,
    )


class MuonTwin:
    """Muon by singular values, which the iteration's polynomial moves; AdamW for the rest."""

    def __init__(self, leaf: Tensor, client: ClientSettings, model: Model) -> None:
        self._leaf, self._client, self._layout = leaf, client, model.layout
        self._adamw = adamw_twin(leaf, client, model)
        self._hidden = [
            name
            for name, shape in model.layout.shapes.items()
            if len(shape) == 2 and not name.startswith(("embedding", "output"))
        ]
        self._momenta = dict.fromkeys(self._hidden, torch.zeros(()))
        self.zero_grad = self._adamw.zero_grad

    def step(self) -> None:
        """Take a step with the leaf's gradient."""
        assert self._leaf.grad is not None
        gradients = self._layout.views(self._leaf.grad)
        before = self._layout.views(self._leaf.detach().clone())
        self._adamw.step()
        after, rate = self._layout.views(self._leaf.detach()), self._client.learning_rate
        for name in self._hidden:
            self._momenta[name] = self._client.momentum * self._momenta[name] + gradients[name]
            direction = gradients[name] + self._client.momentum * self._momenta[name]
            u, sizes, v = torch.linalg.svd(direction, full_matrices=False)
            sizes = sizes / sizes.norm()
            for _ in range(5):
                sizes = 3.4445 * sizes - 4.7750 * sizes**3 + 2.0315 * sizes**5
            step = 0.2 * max(direction.shape) ** 0.5 * (u * sizes) @ v
            after[name].copy_(before[name] * (1 - rate * self._client.weight_decay) - rate * step)


TWINS: dict[str, Callable[[Tensor, ClientSettings, Model], Any]] = {
    "sgd": sgd_twin,
    "adamw": adamw_twin,
    "muon": MuonTwin,
}
OTHERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"momentum": 0.6, "second_moment_decay": 0.9, "adaptivity": 1e-3},
    "muon": {"momentum": 0.6, "second_moment_decay": 0.9, "adaptivity": 1e-3},
}
"""Values that are not the defaults."""
MORE: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.3},
    {"gradient_clip": 0.05},
    {"gradient_clip": 0.05, "weight_decay": 0.3},
]
every = pytest.mark.parametrize("name", OPTIMIZERS)
BATCHES = [batch_of([6, 3, 3, 1], 1), with_gaps(batch_of([4, 4, 2], 2)), batch_of([5], 3)]


def settings_of(name: str, **more: Any) -> ClientSettings:
    return ClientSettings(optimizer=name, learning_rate=0.05, **more)


def twin(model: Model, client: ClientSettings, start: Tensor, batches: Iterable[Batch]) -> Tensor:
    """Return the parameters after steps of the twin with gradients by autograd."""
    leaf = start.clone().requires_grad_()
    optimizer = TWINS[client.optimizer](leaf, client, model)
    for batch in batches:
        named = model.layout.views(leaf)
        logits = model.logits(named, model.features(named, torch.from_numpy(batch.inputs).long()))
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.from_numpy(batch.targets).long().flatten(), reduction="none"
        )
        optimizer.zero_grad()
        losses[torch.from_numpy(batch.asked).flatten()].mean().backward()
        if client.gradient_clip is not None and leaf.grad is not None:
            leaf.grad *= min(1.0, client.gradient_clip / float(leaf.grad.norm()))
        optimizer.step()
    return leaf.detach()


def start_of(model: Model, dtype: torch.dtype) -> Tensor:
    drawn = torch.Generator().manual_seed(2)
    return torch.randn(model.layout.size, generator=drawn, dtype=dtype) / 4


@every
@pytest.mark.parametrize("architecture_name", ARCHITECTURES)
@pytest.mark.parametrize("by_hand", [False, True])
def test_steps_are_those_of_the_twin(name: str, architecture_name: str, by_hand: bool) -> None:
    if by_hand and not architecture(architecture_name).by_hand:
        pytest.skip("it has no gradient by hand")
    model = entry(architecture_name)
    for more in MORE:
        client = settings_of(name, **OTHERS[name], **more)
        for dtype, tolerance in ((torch.float64, 1e-7), (torch.float32, 3e-3)):
            start = start_of(model, dtype)
            ours = start.clone()
            step = (FusedSgd if by_hand else GeneralSgd)(model, client, ours).step
            for batch in BATCHES:
                step(batch)
            expected = twin(model, client, start, BATCHES)
            moved = float((expected - start).norm())
            assert float((ours - expected).norm()) <= tolerance * moved, (more, dtype)


@every
def test_the_usual_constants_are_those_of_the_twin(name: str) -> None:
    model = entry("cifg")
    start = start_of(model, torch.float64)
    client, ours = settings_of(name), start.clone()
    stepper = FusedSgd(model, client, ours)
    for batch in BATCHES:
        stepper.step(batch)
    torch.testing.assert_close(ours, twin(model, client, start, BATCHES), rtol=0, atol=1e-6)
    assert OPTIMIZERS[name].keys >= OTHERS[name].keys()


@every
@pytest.mark.parametrize("architecture_name", ["si_cifg", "lstm"])
def test_nothing_is_left_to_the_next_client(name: str, architecture_name: str) -> None:
    model, client = entry(architecture_name), settings_of(name)
    start = initial_parameters(model, 0)
    used, fresh = LocalTrainer(model, client), LocalTrainer(model, client)
    for trainer in (used, fresh):
        trainer.begin(start)
    used.train(BATCHES)
    for trainer in (used, fresh):
        trainer.train(BATCHES[:2])
    assert torch.equal(used.parameters, fresh.parameters)
    used.begin(start, 0.5)
    used.train(BATCHES)
    half = client.model_copy(update={"learning_rate": client.learning_rate / 2})
    other = LocalTrainer(model, half)
    other.begin(start)
    other.train(BATCHES)
    assert torch.equal(used.parameters, other.parameters)


@every
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_words_that_a_client_does_not_have_are_moved_by_weight_decay_alone(
    name: str, weight_decay: float
) -> None:
    model = entry("si_cifg")
    start = initial_parameters(model, 0)
    trainer = LocalTrainer(model, settings_of(name, weight_decay=weight_decay))
    trainer.begin(start)
    trainer.train(BATCHES)
    has = np.unique(np.concatenate([batch.inputs.ravel() for batch in BATCHES]))
    lacks = np.setdiff1d(np.arange(VOCABULARY), has)
    assert len(lacks)
    before, after = (model.layout.views(flat)["embedding"] for flat in (start, trainer.parameters))
    kept = (1 - 0.05 * weight_decay) ** len(BATCHES)
    torch.testing.assert_close(after[lacks], before[lacks] * kept, rtol=1e-6, atol=0)
    assert (after[has] != before[has]).any(1).sum() > len(has) / 2
    assert len(trainer.spans) == (1 if weight_decay else len(has) + 1)


@every
def test_keys_of_others_are_refused(name: str) -> None:
    values: dict[str, Any] = {
        "momentum": 0.5,
        "second_moment_decay": 0.5,
        "adaptivity": 0.5,
        "relative_clip": 2.0,
    }
    assert set(values) == {key for one in OPTIMIZERS for key in OPTIMIZERS[one].keys}
    for key in values.keys() - OPTIMIZERS[name].keys:
        with pytest.raises(UserError, match=rf"^client\.{key}=.* has no effect with .*={name}"):
            Experiment(client={"optimizer": name, "weight_decay": 0.1, key: values[key]})


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"'adam' .*did you mean adamw\? expected one of sgd, adam"):
        Experiment(client={"optimizer": "adam"})
