import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fedsi.experiment import ModelSettings
from fedsi.models.build import initial_parameters
from fedsi.models.recurrent import Recurrent


def model(vocabulary: int = 11, **changes: Any) -> Recurrent:
    values = {"embedding_size": 6, "hidden_size": 8, **changes}
    return Recurrent(ModelSettings(**values), vocabulary)


def random_parameters(model: Recurrent, *axes: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(*axes, model.layout.size, generator=generator, dtype=torch.float64)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"architecture": "cifg"},
    {"projection": False},
    {"tied_output": True},
    {"tied_output": True, "projection": False, "hidden_size": 6},
    {"embedding_normalisation": "none"},
    {"architecture": "lstm"},
    {"architecture": "lstm", "recurrent_projection": True},
    {"recurrent_projection": True, "tied_output": True},
]


def test_the_stack_overflow_model_has_its_published_size() -> None:
    for architecture, size in (("lstm", 4_050_748), ("cifg", 3_536_858)):
        sizes = ModelSettings(architecture=architecture, embedding_size=96, hidden_size=670)
        assert Recurrent(sizes, 10_004).layout.size == size


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_by_a_plain_calculation(variant: dict[str, Any]) -> None:
    lm = model(**variant)
    p = lm.layout.views(random_parameters(lm))
    ids = torch.tensor([[1, 5, 9], [4, 4, 2]])
    features = lm.features(p, ids)
    states = features
    if "projection.bias" in p:
        states = (
            torch.einsum("bth,he->bte", features, p["projection.weight"]) + p["projection.bias"]
        )
    output = p["output.weight"] if "output.weight" in p else p["embedding"].T
    expected = torch.einsum("bte,ev->btv", states, output) + p["output.bias"]
    torch.testing.assert_close(lm.logits(p, features), expected)
    torch.testing.assert_close(lm.logits(p, features[0]), expected[0])
    assert ("output.weight" in p) != lm.settings.tied_output
    assert features.shape[-1] == (
        6 if lm.settings.recurrent_projection else lm.settings.hidden_size
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_client_axis_is_as_many_separate_clients(variant: dict[str, Any]) -> None:
    lm = model(**variant)
    flat = random_parameters(lm, 3)
    ids = torch.randint(0, 11, (3, 2, 5), generator=torch.Generator().manual_seed(0))
    views = lm.layout.views(flat)
    together = lm.logits(views, lm.features(views, ids))
    assert together.shape == (3, 2, 5, 11)
    for client in range(3):
        alone = lm.layout.views(flat[client])
        expected = lm.logits(alone, lm.features(alone, ids[client]))
        torch.testing.assert_close(together[client], expected, rtol=0, atol=1e-12)


def test_normalised_embeddings_do_not_depend_on_their_scale() -> None:
    lm = model()
    flat = random_parameters(lm)
    ids = torch.tensor([[1, 5, 9]])
    views = lm.layout.views(flat)
    larger = views | {"embedding": 30.0 * views["embedding"]}
    torch.testing.assert_close(lm.features(larger, ids), lm.features(views, ids))


def test_views_share_memory_with_the_flat_vector() -> None:
    lm = model()
    flat = torch.zeros(lm.layout.size)
    for number, view in enumerate(lm.layout.views(flat).values(), start=1):
        view.fill_(number)
    assert flat.unique_consecutive().tolist() == list(range(1, len(lm.layout.shapes) + 1))


@pytest.mark.parametrize(("style", "limit", "bias"), [("default", 0.5, 1.0), ("paper", 0.05, 0.0)])
def test_initial_parameters(style: str, limit: float, bias: float) -> None:
    lm = model(vocabulary=500, initialisation=style, embedding_size=32, hidden_size=40)
    flat = initial_parameters(lm, seed=4)
    assert torch.equal(flat, initial_parameters(lm, seed=4))
    assert not torch.equal(flat, initial_parameters(lm, seed=5))
    p = lm.layout.views(flat)
    assert 0.98 * limit < p["embedding"].abs().max() <= limit
    assert p["cell.kernel"].std().item() == pytest.approx(math.sqrt(2 / 32), rel=0.05)
    torch.testing.assert_close(
        p["cell.recurrent"] @ p["cell.recurrent"].T, torch.eye(40), rtol=0, atol=1e-5
    )
    assert p["cell.bias"].tolist() == [bias] * 40 + [0.0] * 80
    assert p["projection.weight"].abs().max() <= math.sqrt(6 / 72)
    assert p["output.bias"].abs().sum() == 0


def test_initial_parameters_of_an_lstm_with_a_recurrent_projection() -> None:
    lm = model(architecture="lstm", recurrent_projection=True, initialisation="default")
    p = lm.layout.views(initial_parameters(lm, seed=4))
    assert p["cell.bias"].tolist() == [1.0] * 8 + [0.0] * 24
    torch.testing.assert_close(
        p["cell.recurrent"] @ p["cell.recurrent"].T, torch.eye(6), rtol=0, atol=1e-5
    )
    assert "projection.bias" not in p
