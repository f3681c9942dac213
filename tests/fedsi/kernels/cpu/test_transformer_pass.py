"""Transformers' steps without autograd against the functions under autograd."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi.errors import UserError
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.kernels.cpu import tiles
from fedsi.kernels.cpu.packing import pack_sentences
from fedsi.learning.client import LocalTrainer
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.models.build import initial_parameters
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.transformer import Transformer
from fedsi.tasks import next_word
from fedsi.tasks.task import Batch
from tests.fedsi.learning.test_step_by_hand import (
    CLIENTS,
    VOCABULARY,
    batch_of,
    check_gaps,
    check_steps,
    natural_step,
    random_start,
)

POSITIONS = sorted(ENCODINGS)
LENGTHS = st.lists(st.integers(1, 11), min_size=1, max_size=5)


@st.composite
def models(draw: st.DrawFn) -> ModelSettings:
    kind = draw(st.sampled_from(["none", "cell", "attention", "full", "si_transformer"]))
    si = kind == "si_transformer"
    relu_only = kind in {"cell", "full", "si_transformer"}
    heads = draw(st.integers(1, 3))
    positions = draw(st.sampled_from(POSITIONS))
    return ModelSettings(
        architecture=kind if si else "transformer",
        scale_invariance="none" if si else kind,
        activation="relu" if relu_only else draw(st.sampled_from(["relu", "gelu"])),
        positions=positions,
        fire_layers=draw(st.sampled_from([1, 2])) if positions == "fire" else 2,
        heads=heads,
        embedding_size=heads * draw(st.sampled_from([4, 6, 18])),
        layers=draw(st.integers(1, 3)),
        feedforward_size=draw(st.integers(1, 9)),
        max_length=draw(st.integers(12, 14)),
        tied_output=draw(st.booleans()),
        embedding_normalisation=draw(st.sampled_from(["none", "rms"])),
    )


@settings(max_examples=60)
@given(settings=models(), client=CLIENTS, lengths=LENGTHS)
def test_ten_steps_are_those_of_autograd(
    settings: ModelSettings, client: ClientSettings, lengths: list[int]
) -> None:
    model = Transformer(settings, VOCABULARY)
    batches = [batch_of(lengths, step) for step in range(10)]
    check_steps(model, client, random_start(model, sum(lengths)), batches)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("kind", ["none", "cell", "attention", "full"])
def test_each_parameters_gradient_is_that_of_autograd(positions: str, kind: str) -> None:
    """Sentences longer than a tile of scores is wide, and a head wider than one."""
    settings = ModelSettings(
        architecture="transformer",
        scale_invariance=kind,
        positions=positions,
        activation="gelu" if kind in {"none", "attention"} else "relu",
        embedding_size=2 * (tiles.COLUMNS + 4),
        heads=2,
        layers=2,
        feedforward_size=10,
        max_length=71,
    )
    model = Transformer(settings, VOCABULARY)
    start = random_start(model, 1)
    if positions == "fire":
        # Without a query before it, the threshold has no gradient.
        model.layout.views(start)["positions.threshold"].fill_(20.0)
    batch = batch_of([70, 1, 33, 8, 5], 2)
    client = ClientSettings(learning_rate=1.0)
    expected, _ = natural_step(model, client, start, batch)
    ours = start.clone()
    FusedSgd(model, client, ours).step(batch)
    found, wanted = (model.layout.views(end - start) for end in (ours, expected))
    for name, gradient in wanted.items():
        size = float(gradient.norm())
        # Softmax ignores the last bias of FIRE: its gradient is a rounding error, or zero.
        unseen = name == "positions.third.bias" and kind in {"none", "cell"}
        assert size > 0 or unseen, name
        assert float((found[name] - gradient).norm()) <= max(1e-9 * size, 1e-14), name


def test_queries_without_a_positive_score_have_the_gradient_of_autograd() -> None:
    settings = ModelSettings(architecture="si_transformer", embedding_size=8, heads=2)
    model = Transformer(settings, VOCABULARY)
    start = random_start(model, 2)
    views = model.layout.views(start)
    views["blocks.0.attention.query"].copy_(-views["blocks.0.attention.key"])
    views["blocks.1.attention.key"].mul_(1e-14)  # sums of scores below their bound
    batch = batch_of([6, 1, 3], 0)
    client = ClientSettings(learning_rate=1e-3)
    expected, _ = natural_step(model, client, start, batch)
    ours = start.clone()
    FusedSgd(model, client, ours).step(batch)
    moved = float((expected - start).norm())
    assert float((ours - expected).norm()) <= 1e-10 * moved


def test_rows_below_the_smallest_deviation_have_the_gradient_of_autograd() -> None:
    settings = ModelSettings(
        architecture="transformer", embedding_size=8, heads=2, embedding_normalisation="none"
    )
    model = Transformer(settings, VOCABULARY)
    start = random_start(model, 2)
    model.layout.views(start)["embedding"].mul_(1e-7)
    batch = batch_of([6, 1, 3], 0)
    client = ClientSettings(learning_rate=1e-3)
    expected, _ = natural_step(model, client, start, batch)
    ours = start.clone()
    FusedSgd(model, client, ours).step(batch)
    moved = float((expected - start).norm())
    assert float((ours - expected).norm()) <= 1e-10 * moved


@pytest.mark.parametrize(
    ("architecture", "positions", "clip"),
    [
        ("transformer", "rotary", None),
        ("transformer", "learned", 0.05),
        ("si_transformer", "fire", None),
        ("si_transformer", "t5", 0.05),
    ],
)
def test_buffers_of_other_batches_do_not_matter(
    architecture: str, positions: str, clip: float | None
) -> None:
    settings = ModelSettings(
        architecture=architecture, positions=positions, embedding_size=12, heads=3, max_length=40
    )
    model = Transformer(settings, VOCABULARY)
    client = ClientSettings(gradient_clip=clip)
    start = initial_parameters(model, 0)
    fresh, used = start.clone(), start.clone()
    dirty = FusedSgd(model, client, used)
    for lengths in ([7, 40, 3], [1], [2, 5, 5, 1]):
        dirty.step(batch_of(lengths, 9))
    used.fill_(np.nan)
    dirty.step(batch_of([40, 8], 3))
    used.copy_(start)
    batch = batch_of([4, 2, 6], 1)
    assert dirty.step(batch) == FusedSgd(model, client, fresh).step(batch)
    assert torch.equal(fresh, used)


@pytest.mark.skipif(not tiles.HAS_BFLOAT16, reason="this processor has no products of bfloat16")
@pytest.mark.parametrize(
    ("architecture", "share"), [("transformer", 0.05), ("si_transformer", 0.2)]
)
def test_steps_in_bfloat16_are_close_to_those_in_float32(architecture: str, share: float) -> None:
    """Factors are rounded by up to 2^-9, which may move a ReLU score near zero across it."""
    settings = ModelSettings(architecture=architecture, embedding_size=21, heads=3)
    model = Transformer(settings, VOCABULARY)
    start = initial_parameters(model, 0)
    ends, losses = [], []
    for precision in ("float32", "bfloat16"):
        ends.append(start.clone())
        client = ClientSettings(learning_rate=0.1, precision=precision)
        stepper = FusedSgd(model, client, ends[-1])
        losses.append([stepper.step(batch_of([7, 5, 5, 2], step))[0] for step in range(10)])
    moved = float((ends[0] - start).norm())
    assert 0 < float((ends[1] - ends[0]).norm()) < share * moved
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize(("tied", "decay"), list(product([False, True], [0.0, 0.1])))
def test_a_client_leaves_nothing_to_the_next_and_differs_only_in_its_spans(
    tied: bool, decay: float
) -> None:
    settings = ModelSettings(
        architecture="transformer", embedding_size=8, heads=2, tied_output=tied, positions="learned"
    )
    model = Transformer(settings, VOCABULARY)
    start = initial_parameters(model, 0)
    client = ClientSettings(weight_decay=decay)
    used, fresh = LocalTrainer(model, client), LocalTrainer(model, client)
    for trainer in (used, fresh):
        trainer.begin(start)
    used.train([batch_of([9, 3, 6], 0)])
    for trainer in (used, fresh):
        trainer.train([next_word.batch(np.array([[3, 4, 3]], np.int32))])
    assert torch.equal(used.parameters, fresh.parameters)
    within = np.zeros(len(start), bool)
    for first, last in used.spans:
        within[first:last] = True
    assert not ((used.parameters != start).numpy() & ~within).any()
    assert within.all() == (tied or decay > 0)


def test_a_sentence_longer_than_the_learned_positions_is_refused() -> None:
    settings = ModelSettings(architecture="transformer", positions="learned", max_length=7)
    model = Transformer(settings, VOCABULARY)
    stepper = FusedSgd(model, ClientSettings(), initial_parameters(model, 0))
    stepper.step(batch_of([7], 0))
    with pytest.raises(UserError, match="8 tokens is longer than the 7 learned"):
        stepper.step(batch_of([8], 0))


@pytest.mark.parametrize("architecture", ["transformer", "si_transformer"])
def test_positions_without_a_target_are_read_all_the_same(architecture: str) -> None:
    settings = ModelSettings(architecture=architecture, embedding_size=8, heads=2)
    model = Transformer(settings, VOCABULARY)
    check_gaps(model, initial_parameters(model, 0))


@given(LENGTHS)
def test_packing_keeps_sentences_together(lengths: list[int]) -> None:
    drawn = batch_of(lengths, 3)
    inputs, targets = (np.pad(part, ((0, 1), (0, 0))) for part in (drawn.inputs, drawn.targets))
    batch = Batch(inputs, targets)
    packed = pack_sentences(batch)
    assert np.diff(packed.starts).tolist() == lengths
    assert packed.longest == max(lengths)
    for k, (length, start) in enumerate(zip(lengths, packed.starts[:-1], strict=True)):
        part: Any = slice(start, start + length)
        assert packed.inputs[part].tolist() == batch.inputs[k, :length].tolist()
        assert packed.asked.targets[part].tolist() == batch.targets[k, :length].tolist()
        assert packed.places[part].tolist() == list(range(length))
