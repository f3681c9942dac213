"""The attack on word vectors against the model's own predictions and other moves."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from fedsi import Experiment, UserError
from fedsi.data.vocabulary import WordVocabulary
from fedsi.inference.attack import Attacked, _overlap, _Texts, attack_texts, check_attackable
from fedsi.inference.reading import TrainedModel
from fedsi.learning.predictions import predictions
from fedsi.models.build import build_model
from fedsi.tasks import next_word
from fedsi.tasks.task import Batch
from tests.built_in import build

VOCABULARY = 13
SIZES = {"embedding_size": 8, "heads": 2, "layers": 2, "hidden_size": 7}
MODELS: list[dict[str, Any]] = [
    {"architecture": "cifg"},
    {"architecture": "transformer", "feedforward_size": 9, "tied_output": True,
     "embedding_normalisation": "none"},
    {"architecture": "transformer", "feedforward": "moe", "feedforward_size": 9},
    {"architecture": "si_transformer", "feedforward": "top_k", "feedforward_size": 160,
     "active_share": 0.2},
]  # fmt: skip
every = pytest.mark.parametrize("changes", MODELS, ids=str)


def trained(**changes: Any) -> TrainedModel:
    model = build(VOCABULARY, **{**SIZES, **changes})
    generator = torch.Generator().manual_seed(1)
    flat = torch.randn(model.layout.size, generator=generator, dtype=torch.float64)
    vocabulary = WordVocabulary([chr(97 + k) for k in range(VOCABULARY - 4)])
    return TrainedModel(model, model.layout.views(flat), vocabulary)


def texts() -> Batch:
    rows = np.random.default_rng(0).integers(1, VOCABULARY, (5, 8)).astype(np.int32)
    rows[1, 5:] = 0
    return next_word.batch(rows)


@every
def test_no_attack_gives_the_models_own_predictions(changes: dict[str, Any]) -> None:
    one, batch = trained(**changes), texts()
    logits, targets = predictions(one.model, one.parameters, batch)
    right = int((logits.argmax(-1) == targets).sum())
    loss = functional.cross_entropy(logits, targets, reduction="sum").item()
    (found,) = attack_texts(one, batch, [0.0], 3)
    assert (found.targets, found.right, found.kept) == (len(targets), right, right)
    assert found.loss == pytest.approx(loss, rel=1e-9)
    tokens = 2 * len(targets) if "feedforward" in changes else 0  # of two blocks
    assert found.tokens == found.overlap == tokens


@every
def test_moves_stay_in_their_box_and_raise_the_loss_more_than_random_ones(
    changes: dict[str, Any],
) -> None:
    one, batch = trained(**changes), texts()
    some = _Texts(one, batch)
    rms = some.vectors.square().mean().sqrt()
    before, weak, strong = attack_texts(one, batch, [0.0, 0.01, 0.1], 10)
    assert before.loss < weak.loss < strong.loss
    assert strong.kept <= min(before.right, strong.right)
    for epsilon in (0.01, 0.1):
        moved = some.worst(epsilon, 10)
        assert moved.abs().max() <= epsilon * rms * (1 + 1e-12)
        generator = torch.Generator().manual_seed(2)
        found = some.predicted(moved)
        worst = some.compared(found, found).loss
        for _ in range(5):
            signs = torch.randn(moved.shape, generator=generator, dtype=torch.float64).sign()
            other = some.predicted(epsilon * rms * signs)
            assert some.compared(other, other).loss < worst


def test_overlap_is_what_is_shared_of_either() -> None:
    one = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)
    two = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=torch.bool)
    assert _overlap(one, two).tolist() == [0, 0.5, 1, 1]


def test_sums_add_up() -> None:
    one = Attacked(1, 2, 3, 4.0, 5, 6.0)
    assert one + one == Attacked(2, 4, 6, 8.0, 10, 12.0)


def test_models_without_known_word_vectors_are_refused() -> None:
    model = build_model(Experiment(model={"architecture": "tests.own_models:Gru"}), VOCABULARY)
    flat = torch.zeros(model.layout.size)
    own = TrainedModel(model, model.layout.views(flat), trained(**MODELS[0]).vocabulary)
    with pytest.raises(UserError, match="has no word vectors that fedsi knows"):
        check_attackable(own)
