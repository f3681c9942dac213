"""Losses and ranks in one pass against PyTorch's own, also with ties and beyond the finite."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu import ranks as slices
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.ranks import ranked_by_layer, ranked_by_logits
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.tasks.next_word import ranks


def rounded(*shape: int) -> torch.Tensor:
    """Return numbers of which many are equal."""
    return torch.randn(*shape).mul_(2).round_().div_(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_those_of_a_full_sort(dtype: torch.dtype) -> None:
    logits, targets = rounded(300, 40).to(dtype), torch.randint(40, (300,))
    given = logits.clone()
    found = ranked_by_logits(logits, targets)
    assert torch.equal(logits, given)
    order = logits.sort(dim=-1, descending=True, stable=True).indices
    assert found.ranks.tolist() == (order == targets[:, None]).int().argmax(-1).tolist()
    assert found.ranks.tolist() == ranks(logits, targets).tolist()
    losses = functional.cross_entropy(logits.double(), targets, reduction="none")
    torch.testing.assert_close(torch.from_numpy(found.losses), losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite(poison: float) -> None:
    logits, targets = rounded(20, 9), torch.arange(20) % 9
    logits[:, 4] = poison
    found = ranked_by_logits(logits, targets)
    losses = functional.cross_entropy(logits.double(), targets, reduction="none").numpy()
    if poison == float("-inf"):
        np.testing.assert_array_equal(found.ranks, ranks(logits, targets))
        np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    else:
        assert np.isnan(losses).all()
        assert np.isnan(found.losses).all()
        assert (found.ranks == 9).all()


@pytest.mark.parametrize("tied", [True, False])
def test_slices_of_a_layer(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE", 7 * 50)
    weight = rounded(50, 6).t() if tied else rounded(6, 50)
    bias, features, targets = rounded(50), rounded(30, 6), torch.randint(50, (30,))
    layer, space = (weight, bias), Workspace(torch.float32)
    found = ranked_by_layer(layer, features, targets, Products(ClientSettings()), space)
    expected = ranked_by_logits(features @ weight + bias, targets)
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.losses, expected.losses)
