"""Steps without autograd against the usual module under autograd, in both precisions."""

import math
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from fedsi.data.protocol import EOS, PAD
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.kernels.cpu import output, tiles
from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.packing import Asked, pack_batch
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.build import initial_parameters
from fedsi.models.model import Model
from fedsi.models.recurrent import GATES, Recurrent
from fedsi.models.transformer import Transformer
from fedsi.tasks import next_word
from fedsi.tasks.task import Batch

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=6)
MODELS = st.builds(
    ModelSettings,
    architecture=st.sampled_from(["cifg", "si_cifg"]),
    embedding_size=st.integers(1, 6),
    hidden_size=st.integers(4, 8),  # with one or two units a max-normalised cell may be all zeros
    projection=st.just(True),
    recurrent_projection=st.booleans(),
    tied_output=st.booleans(),
    embedding_normalisation=st.sampled_from(["none", "rms"]),
) | st.builds(
    ModelSettings,
    architecture=st.sampled_from(["cifg", "si_cifg"]),
    embedding_size=st.just(5),
    hidden_size=st.just(5),
    projection=st.just(False),
    tied_output=st.booleans(),
)
CLIENTS = st.builds(
    ClientSettings,
    learning_rate=st.sampled_from([0.01, 0.3]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    gradient_clip=st.sampled_from([None, 0.05, 10.0]),
    products=st.sampled_from(["own", "torch"]),
) | st.builds(
    ClientSettings,
    learning_rate=st.sampled_from([0.01, 0.3]),
    weight_decay=st.sampled_from([0.01, 0.1]),
    relative_clip=st.sampled_from([0.01, 0.1, 2.0]),
    products=st.sampled_from(["own", "torch"]),
)
VOCABULARY = 13


def batch_of(lengths: list[int], seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    rows = np.full((len(lengths), max(lengths) + 2), PAD, dtype=np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[: length + 1] = rng.integers(EOS, VOCABULARY, length + 1)
    return next_word.batch(rows)


def random_start(model: Model, seed: int) -> Tensor:
    """Return drawn parameters, float64 ``[parameters]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(model.layout.size, generator=generator, dtype=torch.float64) * 0.5


def with_gaps(batch: Batch) -> Batch:
    """Return the batch without every second target but the last ones of sequences."""
    targets = batch.targets.copy()
    later = np.roll(batch.asked, -1, axis=1)
    targets[:, ::2][later[:, ::2]] = PAD
    return Batch(batch.inputs, targets)


def natural_step(
    model: Model, client: ClientSettings, parameters: Tensor, batch: Batch
) -> tuple[Tensor, float]:
    """One step by autograd: logits at every position, padding masked by ignore_index."""
    flat = parameters.clone().requires_grad_()
    named = model.layout.views(flat)
    logits = model.logits(named, model.features(named, torch.from_numpy(batch.inputs).long()))
    targets = torch.from_numpy(batch.targets).long()
    loss = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="mean"
    )
    (gradient,) = torch.autograd.grad(loss, flat)
    if client.gradient_clip is not None:
        gradient = gradient * min(1.0, client.gradient_clip / float(gradient.norm()))
    if client.relative_clip is not None:
        allowed = math.sqrt(
            2 * client.relative_clip**2 * client.weight_decay / client.learning_rate
        )
        limit = allowed * float(parameters.norm())
        gradient = gradient * min(1.0, limit / float(gradient.norm()))
    decayed = parameters * (1 - client.learning_rate * client.weight_decay)
    return decayed - client.learning_rate * gradient, loss.item() * int((targets != PAD).sum())


def natural_steps(
    model: Model, client: ClientSettings, start: Tensor, batches: list[Batch]
) -> tuple[Tensor, list[float]]:
    """Return the parameters after steps by autograd, and the steps' losses."""
    parameters, losses = start, []
    for batch in batches:
        parameters, loss = natural_step(model, client, parameters, batch)
        losses.append(loss)
    return parameters, losses


def amplifies_rounding(
    model: Model,
    client: ClientSettings,
    start: Tensor,
    batches: list[Batch],
    exact: Tensor,
    alike: Callable[[Tensor], Tensor],
) -> bool:
    """Return whether exact steps amplify a float32 rounding error of the start.

    ``alike`` is applied to the rounding errors, and keeps those of equal numbers equal.
    """
    limit = 1e-6 * max(float((exact - start).norm()), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        noise = torch.randn(len(start), generator=generator, dtype=torch.float64)
        noise = 6e-8 * start * alike(noise)
        other, _ = natural_steps(model, client, start + noise, batches)
        if float((other - exact - noise).norm()) > limit:
            return True
    return False


def check_steps(
    model: Model,
    client: ClientSettings,
    start: Tensor,
    batches: list[Batch],
    alike: Callable[[Tensor], Tensor] = torch.clone,
) -> None:
    """Compare ten steps by hand with ten by autograd, in both precisions, from one float64 start.

    Starts whose exact steps amplify a rounding error are skipped, because they show nothing.
    """
    exact = natural_steps(model, client, start, batches)
    assume(not amplifies_rounding(model, client, start, batches, exact[0], alike))
    moved = max(float((exact[0] - start).norm()), 1e-3)
    single = start.float()
    for ours, (natural, expected), tolerance in (
        (start.clone(), exact, 1e-10),
        (single.clone(), natural_steps(model, client, single, batches), 1e-4),
    ):
        stepper = FusedSgd(model, client, ours)
        for batch, expected_loss in zip(batches, expected, strict=True):
            loss, targets = stepper.step(batch)
            assert targets == batch.count
            assert loss == pytest.approx(expected_loss, rel=tolerance, abs=tolerance)
        assert float((ours - natural).norm()) <= tolerance * moved


def make_ties(model: Recurrent, parameters: Tensor) -> Tensor:
    """Return parameters in which all units but the first are alike, so that their maxima tie."""
    tied = parameters.clone()
    named = model.layout.views(tied)
    for name in ("cell.kernel", "cell.recurrent", "cell.bias"):
        gates = named[name].unflatten(-1, (GATES, model.settings.hidden_size))
        gates[..., 1:] = gates[..., 1:2].clone()
    return tied


@settings(max_examples=60)
@given(
    model=MODELS,
    client=CLIENTS,
    lengths=LENGTHS,
    slice_size=st.sampled_from([1, 20, 10**6]),
    ties=st.booleans(),
)
def test_ten_steps_are_those_of_the_natural_module(
    model: ModelSettings, client: ClientSettings, lengths: list[int], slice_size: int, ties: bool
) -> None:
    functions = Recurrent(model, VOCABULARY)
    start = random_start(functions, sum(lengths))
    # The products of equal units have equal bits only where all are computed alike, four at a time,
    # and as deep a sum as a hidden state.
    alike: Callable[[Tensor], Tensor] = torch.clone
    if ties and model.hidden_size % 4 == 0 and not model.recurrent_projection:
        alike = partial(make_ties, functions)
        start = alike(start)
    batches = [batch_of(lengths, step) for step in range(10)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "SLICE", slice_size)
        check_steps(functions, client, start, batches, alike)


@pytest.mark.parametrize("size", [1e-9, 1e-7, 1e-5])
def test_vectors_too_small_to_normalise_are_scaled_by_a_constant(size: float) -> None:
    functions = Recurrent(ModelSettings(architecture="cifg", hidden_size=9), VOCABULARY)
    start = torch.randn(
        functions.layout.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    functions.layout.views(start)["embedding"].mul_(size)
    client = ClientSettings(learning_rate=size)
    ours = start.clone()
    expected, _ = natural_step(functions, client, start, batch_of([5, 3], 0))
    FusedSgd(functions, client, ours).step(batch_of([5, 3], 0))
    torch.testing.assert_close(ours - start, expected - start, rtol=1e-6, atol=1e-14)


@pytest.mark.skipif(not tiles.HAS_BFLOAT16, reason="this processor has no products of bfloat16")
@pytest.mark.parametrize("recurrent_projection", [False, True])
@pytest.mark.parametrize("architecture", ["cifg", "si_cifg"])
def test_steps_in_bfloat16_are_close_to_those_in_float32(
    architecture: str, recurrent_projection: bool
) -> None:
    """Factors are rounded by up to 2^-9; ten steps end within a few per cent of how far they moved.

    In a max-normalised cell another unit may become the largest.
    """
    settings = ModelSettings(
        architecture=architecture,
        embedding_size=21,
        hidden_size=35,
        recurrent_projection=recurrent_projection,
    )
    model = Recurrent(settings, VOCABULARY)
    start = initial_parameters(model, 0)
    ends, losses = [], []
    for client in (ClientSettings(), ClientSettings(precision="bfloat16")):
        ends.append(start.clone())
        stepper = FusedSgd(model, client, ends[-1])
        losses.append([stepper.step(batch_of([7, 5, 5, 2], step))[0] for step in range(10)])
    moved = float((ends[0] - start).norm())
    assert 0 < float((ends[1] - ends[0]).norm()) < (0.06 if recurrent_projection else 0.03) * moved
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("architecture", ["cifg", "si_cifg"])
def test_buffers_of_other_batches_do_not_matter(architecture: str) -> None:
    model = Recurrent(ModelSettings(architecture=architecture, hidden_size=9), VOCABULARY)
    start = torch.randn(model.layout.size, generator=torch.Generator().manual_seed(0))
    fresh, used = start.clone(), start.clone()
    dirty = FusedSgd(model, ClientSettings(), used)
    for lengths in ([7, 7, 3], [1], [2, 5, 5, 1]):
        dirty.step(batch_of(lengths, 9))
    used.copy_(start)
    batch = batch_of([4, 2, 6], 1)
    assert dirty.step(batch) == FusedSgd(model, ClientSettings(), fresh).step(batch)
    assert torch.equal(fresh, used)


@pytest.mark.parametrize("architecture", ["cifg", "si_cifg"])
def test_positions_without_a_target_are_read_all_the_same(architecture: str) -> None:
    model = Recurrent(ModelSettings(architecture=architecture, hidden_size=9), VOCABULARY)
    start = initial_parameters(model, 0)
    check_gaps(model, start)


def check_gaps(model: Recurrent | Transformer, start: Tensor) -> None:
    """Compare a step on a batch with gaps with one by autograd."""
    batch, ours = with_gaps(batch_of([7, 1, 4, 4], 0)), start.double()
    expected, expected_loss = natural_step(model, ClientSettings(), ours.clone(), batch)
    loss, targets = FusedSgd(model, ClientSettings(), ours).step(batch)
    assert targets == batch.count
    assert loss == pytest.approx(expected_loss, rel=1e-9)
    assert 0 < batch.count < batch_of([7, 1, 4, 4], 0).count
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


@given(LENGTHS)
def test_packing_keeps_every_target_behind_its_own_history(lengths: list[int]) -> None:
    batch = batch_of(lengths, 3)
    packed = pack_batch(batch)
    assert (np.diff(packed.sizes) <= 0).all()
    assert sum(packed.sizes) == len(packed.inputs) == len(packed.asked.targets) == sum(lengths)
    histories: list[tuple[int, ...]] = []
    before = [-1] * packed.sizes[0] + packed.before.tolist()
    for position, earlier in enumerate(before):
        past = histories[earlier] if earlier >= 0 else ()
        histories.append((*past, int(packed.inputs[position])))
    found = sorted(zip(histories, packed.asked.targets.tolist(), strict=True))
    expected = sorted(
        (tuple(inputs[: t + 1].tolist()), int(targets[t]))
        for inputs, targets, length in zip(batch.inputs, batch.targets, lengths, strict=True)
        for t in range(length)
    )
    assert found == expected


@pytest.mark.parametrize(("positions", "vocabulary"), list(product([1, 5], [2, 50])))
def test_the_output_layers_loss_survives_large_logits(positions: int, vocabulary: int) -> None:
    states = torch.full((positions, 3), 60.0)
    weight = torch.linspace(-1, 1, 3 * vocabulary).view(3, vocabulary)
    bias = torch.zeros(vocabulary)
    targets = torch.zeros(positions, dtype=torch.long)
    expected = functional.cross_entropy(states @ weight, targets, reduction="sum")
    grad = torch.empty_like(states)
    found = output.output_gradient(
        (weight, bias),
        states,
        Asked(targets, None),
        Products(ClientSettings()),
        Workspace(torch.float32),
        torch.empty(positions * vocabulary),
        grad,
    )
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert bool(grad.isfinite().all())
