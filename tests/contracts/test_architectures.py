"""Contract of all architectures in the table; a new entry is tested automatically."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fedsi import Experiment, UserError
from fedsi.data.vocabulary import WordVocabulary
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.inference.export import FORMATS
from fedsi.inference.reading import TrainedModel
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.output import UpdateRule
from fedsi.learning.predictions import predictions
from fedsi.models.build import initial_parameters
from fedsi.models.layers import output_matrix
from fedsi.models.model import Model
from fedsi.models.table import ARCHITECTURES, OF_ALL, architecture, architecture_keys
from fedsi.tables import load
from fedsi.tasks import next_word
from tests.built_in import build

VOCABULARY = 13
SIZES: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_size": 6,
    "heads": 2,
    "feedforward_size": 10,
    "layers": 1,
    "state_size": 5,
}
every = pytest.mark.parametrize("name", ARCHITECTURES)
EXAMPLE: dict[str, Any] = {
    "arguments": {"width": 9},
    "encoder": "mamba",
    "label_encoder": "own",
    "pooling": "last",
    "temperature": 0.5,
    "embedding_size": 9,
    "hidden_size": 9,
    "projection": False,
    "recurrent_projection": True,
    "tied_output": True,
    "embedding_normalisation": "none",
    "initialisation": "paper",
    "layers": 3,
    "heads": 2,
    "feedforward": "top_k",
    "feedforward_size": 9,
    "active_share": 0.3,
    "experts": 3,
    "experts_per_token": 2,
    "balance": 0.5,
    "activation": "gelu",
    "positions": "fire",
    "max_length": 9,
    "fire_layers": 1,
    "norms": "around",
    "random_start": True,
    "max_distance": 9,
    "scale_invariance": "full",
    "convolution": "identity",
    "state_size": 9,
}
"""A value of each key that is not its default."""


def entry(name: str) -> Model:
    return build(VOCABULARY, architecture=name, **SIZES)


def draw(model: Model, *axes: int) -> tuple[Tensor, Tensor]:
    """Return random parameters, float64, and token ids ``[*, 3, 7]``."""
    generator = torch.Generator().manual_seed(3)
    flat = torch.randn(*axes, model.layout.size, generator=generator, dtype=torch.float64)
    return flat, torch.randint(1, VOCABULARY, (*axes, 3, 7), generator=generator)


def logits_of(model: Model, flat: Tensor, ids: Tensor) -> Tensor:
    named = model.layout.views(flat)
    return model.logits(named, model.features(named, ids))


@every
def test_layout_and_initial_parameters_agree(name: str) -> None:
    model = entry(name)
    flat = initial_parameters(model, 4)
    assert flat.shape == (model.layout.size,)
    assert flat.dtype == torch.float32
    assert flat.isfinite().all()
    assert torch.equal(flat, initial_parameters(model, 4))
    assert not torch.equal(flat, initial_parameters(model, 5))


@every
def test_logits_have_the_vocabulary_as_the_last_axis(name: str) -> None:
    model = entry(name)
    flat, ids = draw(model)
    named = model.layout.views(flat)
    features = model.features(named, ids)
    assert features.shape[:2] == ids.shape
    logits = model.logits(named, features)
    assert logits.shape == (*ids.shape, VOCABULARY)
    chosen = model.logits(named, features[ids > 4])
    torch.testing.assert_close(chosen, logits[ids > 4], rtol=0, atol=1e-12)


@every
def test_no_word_sees_later_ones(name: str) -> None:
    model = entry(name)
    flat, ids = draw(model)
    later = ids.clone()
    later[:, 4:] = (ids[:, 4:] + 1) % VOCABULARY
    before, after = (logits_of(model, flat, each) for each in (ids, later))
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-12)
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-6


@every
def test_memory_gives_what_reading_anew_gives(name: str) -> None:
    model = entry(name)
    flat, ids = draw(model)
    named = model.layout.views(flat)
    _, memory = model.continued(named, ids[:, :3], [])
    features, _ = model.continued(named, ids[:, 3:], memory)
    anew = logits_of(model, flat, ids)[:, 3:]
    torch.testing.assert_close(model.logits(named, features), anew, rtol=0, atol=1e-10)


@every
def test_a_client_axis_is_as_many_clients(name: str) -> None:
    model = entry(name)
    flat, ids = draw(model, 2)
    together = logits_of(model, flat, ids)
    for client in range(2):
        alone = logits_of(model, flat[client], ids[client])
        torch.testing.assert_close(together[client], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if ARCHITECTURES[n].by_hand])
def test_the_gradient_by_hand_is_that_of_autograd(name: str) -> None:
    model = entry(name)
    flat, ids = draw(model)
    flat /= 4
    leaf = flat.clone().requires_grad_()
    batch = next_word.batch(ids.numpy())
    logits, targets = predictions(model, model.layout.views(leaf), batch)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    (expected,) = torch.autograd.grad(loss, leaf)
    gradient = torch.zeros_like(flat)
    by_hand = load(str(architecture(name).by_hand))(model, model.layout.views(flat))
    update = UpdateRule(Products(ClientSettings()), 1.0, 1.0)
    found = by_hand.run(batch, model.layout.views(gradient), update)
    assert found == pytest.approx(loss.item(), rel=1e-10)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)


@every
def test_what_is_exported_is_the_model(name: str) -> None:
    model = entry(name)
    flat, _ = draw(model)
    vocabulary = WordVocabulary([chr(97 + k) for k in range(VOCABULARY - 4)])
    parameters = model.layout.views(flat.float() / 4)
    trained = TrainedModel(model, parameters, vocabulary)
    assert all(export(trained, None) for export in FORMATS.values())
    ids = torch.randint(VOCABULARY, (5, 9))
    with torch.no_grad():
        found = model.exported(parameters)(ids)
    torch.testing.assert_close(found, model.logits(parameters, model.features(parameters, ids)))


@every
def test_the_output_layer_reads_its_inputs(name: str) -> None:
    model = entry(name)
    flat, ids = draw(model)
    parameters = model.layout.views(flat)
    features = model.features(parameters, ids)
    states = model.output_inputs(parameters, features)
    if states is None:
        pytest.skip("it has no matrix with a column for each word")
    weight, bias = output_matrix(model.settings, parameters)
    torch.testing.assert_close(states @ weight + bias, model.logits(parameters, features))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "tests.own_models:Gru"])
def test_keys_without_effect_are_refused(name: str) -> None:
    assert set(EXAMPLE) == set(ModelSettings.model_fields) - {"architecture", *OF_ALL}
    for key, value in EXAMPLE.items():
        if key not in architecture_keys(name, "si_cifg"):
            with pytest.raises(UserError, match=rf"^model\.{key}=.* has no effect with .*={name}"):
                Experiment(model={"architecture": name, key: value})


@every
def test_another_architecture_leaves_behind_what_it_does_not_use(name: str) -> None:
    for base in ({"architecture": "lstm", "hidden_size": 8}, {"architecture": "si_transformer"}):
        changed = Experiment(model=base).updated({"model.architecture": name})
        assert changed.model.architecture == name
        with pytest.raises(UserError, match="has no effect"):
            Experiment(model=base).updated(
                {"model.architecture": "transformer", "model.hidden_size": 9}
            )
