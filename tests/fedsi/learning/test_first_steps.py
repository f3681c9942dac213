"""First steps that are computed together have the bits that they have alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsi.data.protocol import EOS, PAD
from fedsi.experiment import ClientSettings, ModelSettings
from fedsi.kernels.cpu import output, tiles
from fedsi.kernels.cpu.recurrent_pass import RecurrentPass
from fedsi.learning.block import BlockTrainer
from fedsi.learning.first_steps import FirstSteps, can_join
from fedsi.learning.one_by_one import OneByOne
from fedsi.learning.step_by_hand import FusedSgd
from fedsi.messages import TRAINING_COLUMNS, Outcome
from fedsi.models.build import initial_parameters
from fedsi.models.model import Model
from fedsi.models.positions.table import ENCODINGS
from fedsi.models.recurrent import Recurrent
from fedsi.models.transformer import Transformer
from fedsi.sums.fixed_point import decode
from fedsi.tasks import next_word
from fedsi.tasks.task import Batch, cross_entropy
from tests.fedsi.learning.test_block import EXPERIMENT, Faulty

VOCABULARY = 71
MODELS = [
    ModelSettings(architecture="cifg", embedding_size=9, hidden_size=21),
    ModelSettings(architecture="si_cifg", embedding_size=16, hidden_size=37, tied_output=True),
    ModelSettings(
        architecture="si_cifg",
        embedding_size=12,
        hidden_size=33,
        recurrent_projection=True,
        embedding_normalisation="rms",
    ),
    ModelSettings(
        architecture="cifg", embedding_size=19, hidden_size=19, projection=False, tied_output=True
    ),
    *(
        ModelSettings.model_validate(
            {"embedding_size": 18, "layers": 2, "heads": 3, "feedforward_size": 40, **more}
        )
        for more in (
            {"architecture": "transformer", "positions": "learned", "activation": "gelu"},
            {"architecture": "si_transformer", "positions": "rotary", "tied_output": True},
            {"architecture": "transformer", "positions": "sinusoidal"},
            {
                "architecture": "si_transformer",
                "positions": "none",
                "embedding_normalisation": "rms",
            },
        )
    ),
]
NAMES = ["cifg", "tied", "recurrent", "unprojected", "learned", "rotary", "sinusoidal", "none"]


def model_of(settings: ModelSettings) -> Model:
    kind = Transformer if "transformer" in settings.architecture else Recurrent
    return kind(settings, VOCABULARY)


def batch_of(lengths: list[int], rng: np.random.Generator, *, gaps: bool) -> Batch:
    """Return a batch of random words; with gaps only some positions have a target."""
    rows = np.full((len(lengths), max(lengths) + 2), PAD, np.int32)
    for row, length in zip(rows, lengths, strict=True):
        row[: length + 1] = rng.integers(EOS, VOCABULARY, length + 1)
    batch = next_word.batch(rows)
    if not gaps:
        return batch
    targets = batch.targets.copy()
    later = np.roll(batch.asked, -1, axis=1)
    targets[:, ::2][later[:, ::2]] = PAD
    return Batch(batch.inputs, targets)


def squared_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets).square()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", MODELS, ids=NAMES)
def test_a_gradient_has_the_same_bits_whatever_it_is_computed_with(
    settings: ModelSettings, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "bfloat16" and not tiles.HAS_BFLOAT16:
        pytest.skip("this processor has no bfloat16 products")
    monkeypatch.setattr(output, "SLICE", 200)  # so that batches have slices of different widths
    keys = {"learning_rate": 0.3, "weight_decay": 0.1, "precision": precision, "products": "own"}
    client = ClientSettings.model_validate(keys)
    model = model_of(settings)
    start = initial_parameters(model, 0)
    first = FirstSteps(model, client)
    first.begin(start)
    rng = np.random.default_rng(0)
    for _ in range(2):
        batches = [
            batch_of(rng.integers(1, 12, rng.integers(1, 17)).tolist(), rng, gaps=gaps)
            for gaps in (False, True, False, False, True)
        ]
        for batch, gradient in zip(batches, first.gradients(batches), strict=True):
            alone, joined = start.clone(), start.clone()
            expected = FusedSgd(model, client, alone).step(batch)
            assert FusedSgd(model, client, joined).step(batch, first=gradient) == expected
            assert torch.equal(joined, alone)


def test_a_single_step_updates_each_slice_of_the_output_while_it_is_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    for name in ("_back", "_apply"):
        honest = getattr(output, name)

        def told(*arguments, name=name, honest=honest):  # type: ignore[no-untyped-def]
            order.append(name)
            return honest(*arguments)

        monkeypatch.setattr(output, name, told)
    monkeypatch.setattr(output, "SLICE", 200)
    model = Recurrent(MODELS[0], VOCABULARY)
    trained = initial_parameters(model, 0)
    batch = batch_of([5, 3], np.random.default_rng(0), gaps=False)
    FusedSgd(model, ClientSettings(), trained).step(batch)
    assert len(order) > 2
    assert order == ["_back", "_apply"] * (len(order) // 2)


@pytest.mark.parametrize("clip_norm", [np.inf, 0.01])
def test_a_block_has_the_bits_and_failures_of_clients_one_at_a_time(
    clip_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[int] = []
    together = RecurrentPass.together

    def counted(self, batches, *others):  # type: ignore[no-untyped-def]
        joined.append(len(batches))
        return together(self, batches, *others)

    monkeypatch.setattr(RecurrentPass, "together", counted)
    trainer = BlockTrainer(EXPERIMENT.updated({"client.products": "own"}), Faulty())
    assert isinstance(trainer._way, OneByOne)
    first = trainer._way._first
    assert first is not None
    first.most_targets = 150
    start, clients = initial_parameters(trainer.model, 0), [5, 0, 2, 1, 3, 7, 9, 4]
    sums, alone = np.zeros((2, len(start)), np.int64)
    rows = trainer.train(start, clients, 3, sums, clip_norm)
    groups = [number for number in joined if number > 1]
    assert len(groups) > 1  # a block is joined in several groups
    trainer._way._first = None
    expected = trainer.train(start, clients, 3, alone, clip_norm)
    assert np.array_equal(rows, expected)
    assert np.array_equal(sums, alone)
    outcomes = rows[:, TRAINING_COLUMNS.index("outcome")]
    assert outcomes[clients.index(2)] == Outcome.RAISED
    assert outcomes[clients.index(0)] == Outcome.AGGREGATED


def test_neither_logits_nor_positions_of_a_joined_batch_grow_with_the_cohort() -> None:
    for vocabulary, targets in ((VOCABULARY, 1 << 12), (1 << 14, 1 << 9)):
        model = Recurrent(MODELS[0], vocabulary)
        assert FirstSteps(model, ClientSettings(products="own")).most_targets == targets


def test_only_models_that_can_be_joined_are() -> None:
    joinable, own = Recurrent(MODELS[0], VOCABULARY), ClientSettings(products="own")
    assert can_join(joinable, own, cross_entropy)
    assert not can_join(joinable, own, squared_cross_entropy)
    gru = Recurrent(ModelSettings(architecture="gru"), VOCABULARY)
    assert not can_join(gru, own, cross_entropy)
    for positions in ENCODINGS:
        keys = {"architecture": "transformer", "positions": positions}
        transformer = model_of(ModelSettings.model_validate(keys))
        assert can_join(transformer, own, cross_entropy) == (ENCODINGS[positions].bias is None)


def test_clients_with_products_of_pytorch_have_the_bits_that_they_have_alone() -> None:
    """A row of PyTorch's product may depend on the others, so first steps are not joined."""
    trainer = BlockTrainer(EXPERIMENT.updated({"client.products": "torch"}), Faulty())
    start, clients = initial_parameters(trainer.model, 0), [5, 0, 1, 3, 7, 9, 4]
    together, alone, own = np.zeros((3, len(start)), np.int64)
    trainer.train(start, clients, 3, together)
    for client in clients:
        trainer.train(start, [client], 3, alone)
    assert np.array_equal(together, alone)
    other = BlockTrainer(EXPERIMENT.updated({"client.products": "own"}), Faulty())
    other.train(start, clients, 3, own)
    np.testing.assert_allclose(decode(together), decode(own), atol=1e-5)
