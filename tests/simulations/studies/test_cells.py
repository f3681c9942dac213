"""Variants of the scale-invariant cell, against the cell that they vary."""

import pytest
import torch

from fedsi.experiment import ModelSettings
from fedsi.models.recurrent import Recurrent
from simulations.studies.cells import ScaleInvariant

NAMES = {
    "embedding": "embedding",
    "cell.kernel": "kernel",
    "cell.recurrent": "recurrent",
    "cell.bias": "bias",
    "projection.weight": "projection",
    "projection.bias": "projection_bias",
    "output.weight": "output",
    "output.bias": "output_bias",
}
IDS = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 5]])


def pair(**variant: object) -> tuple[torch.Tensor, torch.Tensor, ScaleInvariant]:
    """Return the built-in cell's logits, a variant's with the same weights, and the variant."""
    settings = ModelSettings(architecture="si_cifg", embedding_size=6, hidden_size=5)
    model = Recurrent(settings, 12)
    module = ScaleInvariant(12, 6, 5, **variant).double()  # type: ignore[arg-type]
    named = {name: getattr(module, own) for name, own in NAMES.items()}
    return model.logits(named, model.features(named, IDS)), module(IDS), module


def test_without_a_variant_it_is_the_built_in_cell() -> None:
    built_in, own, _ = pair()
    torch.testing.assert_close(own, built_in, rtol=1e-12, atol=1e-12)


def test_without_the_gradient_through_the_maximum_only_gradients_differ() -> None:
    built_in, own, module = pair(through_maximum=False)
    torch.testing.assert_close(own, built_in, rtol=1e-12, atol=1e-12)
    (ours,) = torch.autograd.grad(own.square().sum(), module.kernel, retain_graph=True)
    (theirs,) = torch.autograd.grad(built_in.square().sum(), module.kernel)
    assert (ours - theirs).norm() > 0.01 * theirs.norm()


def test_normalised_inputs_do_not_depend_on_the_kernels_scale() -> None:
    built_in, own, module = pair(inputs="max")
    assert (own - built_in).norm() > 0.01 * built_in.norm()
    with torch.no_grad():
        module.kernel.mul_(7)
    torch.testing.assert_close(module(IDS), own, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="neither plain nor max"):
        ScaleInvariant(12, inputs="rms")
