"""Contract of all feed-forward parts in the table; a new entry is tested automatically."""

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.data.vocabulary import WordVocabulary
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.inference.export import FORMATS
from fedsi.inference.reading import TrainedModel
from fedsi.learning.algorithms.algorithm import NO_PULL
from fedsi.learning.client import LocalTrainer
from fedsi.learning.step_vectorised import Member, VectorisedSgd
from fedsi.models.build import initial_parameters
from fedsi.models.feedforward.table import FEEDFORWARDS, keys_of_parts
from fedsi.models.parameters import Parameters
from fedsi.models.transformer import Transformer
from fedsi.tasks import next_word

if TYPE_CHECKING:
    from fedsi.models.model import Memory

VOCABULARY = 13
EXAMPLE: dict[str, Any] = {
    "active_share": 0.3,
    "experts": 3,
    "experts_per_token": 2,
    "balance": 0.5,
}
"""A value of each key of some parts only that is not its default, with which small parts work."""
every = pytest.mark.parametrize("name", FEEDFORWARDS)
kinds = pytest.mark.parametrize("architecture", ["transformer", "si_transformer"])


def model(name: str, **changes: Any) -> Transformer:
    sizes = {"embedding_size": 8, "heads": 2, "layers": 2, "feedforward_size": 80}
    keys = {key: EXAMPLE[key] for key in FEEDFORWARDS[name].keys}
    values = {"architecture": "transformer", **sizes, **keys, **changes}
    return Transformer(ModelSettings(feedforward=name, **values), VOCABULARY)


def parameters_of(lm: Transformer, *axes: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*axes, lm.layout.size, generator=generator, dtype=torch.float64) / 2


def tokens(*shape: int) -> Tensor:
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(2))


def logits_of(lm: Transformer, parameters: Parameters, ids: Tensor) -> Tensor:
    return lm.logits(parameters, lm.features(parameters, ids))


@every
@kinds
def test_a_token_is_read_alone_or_with_others(name: str, architecture: str) -> None:
    lm = model(name, architecture=architecture)
    flat, ids = parameters_of(lm, 2), tokens(2, 3, 6)
    together = logits_of(lm, lm.layout.views(flat), ids)
    for client in range(2):
        named = lm.layout.views(flat[client])
        alone = logits_of(lm, named, ids[client])
        torch.testing.assert_close(together[client], alone, rtol=0, atol=1e-11)
        one = ids[client, :1]
        memory: Memory = []
        with torch.inference_mode():
            for place in range(6):  # as one types, where only what a token needs is read
                features, memory = lm.continued(named, one[:, place : place + 1], memory)
                found = lm.logits(named, features)
                torch.testing.assert_close(found[0, 0], alone[0, place], rtol=0, atol=1e-11)


@every
@kinds
def test_the_gradient_is_that_of_differences(name: str, architecture: str) -> None:
    lm = model(name, architecture=architecture, layers=1)
    flat, ids = parameters_of(lm), tokens(2, 5)

    def loss(at: Tensor) -> Tensor:
        return logits_of(lm, lm.layout.views(at), ids).logsumexp(-1).square().sum()

    leaf = flat.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    assert all(part.abs().max() > 0 for part in lm.layout.views(gradient).values())
    generator = torch.Generator().manual_seed(8)
    for _ in range(4):
        way = torch.randn(len(flat), generator=generator, dtype=torch.float64)
        h = 1e-7
        slope = (loss(flat + h * way) - loss(flat - h * way)) / (2 * h)
        torch.testing.assert_close(slope, gradient @ way, rtol=1e-5, atol=1e-6)


@every
def test_clients_train_it_alone_or_in_lanes(name: str) -> None:
    lm = model(name)
    settings = ClientSettings(learning_rate=0.3, batch_size=3)
    batches = [next_word.batch(tokens(3, 8).numpy()), next_word.batch(1 + tokens(3, 8).numpy() % 9)]
    start = initial_parameters(lm, 0)
    trainer = LocalTrainer(lm, settings)
    trainer.begin(start)
    result = trainer.train(batches)
    assert not torch.equal(trainer.parameters, start)
    lanes = VectorisedSgd(lm, settings.model_copy(update={"lanes": 2}), start)
    counts = lanes.train(start, [Member.of(batches, NO_PULL, None)] * 2, 0.3)
    torch.testing.assert_close(lanes.parameters[1], trainer.parameters, rtol=0, atol=2e-5)
    assert counts.loss[0] == pytest.approx(result.loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@every
def test_every_format_takes_it(name: str, form: str) -> None:
    lm = model(name)
    vocabulary = WordVocabulary([chr(97 + k) for k in range(VOCABULARY - 4)])
    parameters = lm.layout.views(initial_parameters(lm, 0))
    assert FORMATS[form](TrainedModel(lm, parameters, vocabulary), None)


@every
def test_what_is_exported_is_the_model(name: str) -> None:
    lm = model(name)
    parameters = lm.layout.views(parameters_of(lm).float() / 4)
    ids = tokens(5, 9)
    with torch.no_grad():
        found = lm.exported(parameters)(ids)
    torch.testing.assert_close(found, logits_of(lm, parameters, ids))


@every
def test_keys_of_other_parts_are_refused(name: str) -> None:
    assert set(EXAMPLE) == keys_of_parts()
    base = {"architecture": "transformer", "feedforward": name}
    for key in keys_of_parts() - FEEDFORWARDS[name].keys:
        with pytest.raises(UserError, match=rf"^model\.{key}=.* has no effect with .*={name}"):
            Experiment(model={**base, key: EXAMPLE[key]})
        owners = [one for one in FEEDFORWARDS if key in FEEDFORWARDS[one].keys]
        before = Experiment(model={**base, "feedforward": owners[0], key: EXAMPLE[key]})
        assert before.updated({"model.feedforward": name}).model.feedforward == name


@every
def test_activations_that_it_lacks_are_refused(name: str) -> None:
    for activation in {"relu", "gelu", "geglu"} - {*FEEDFORWARDS[name].activations}:
        with pytest.raises(UserError, match=f"{activation} is not defined for .*={name}, which"):
            Experiment(model={"architecture": "transformer", "feedforward": name,
                              "activation": activation})  # fmt: skip
