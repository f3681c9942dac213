"""Personalisation against a simple loop, and the division of a client's examples."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi import Experiment
from fedsi.data.batches import training_batches
from fedsi.experiment.personalisation import tuning_settings
from fedsi.learning.block import BlockTrainer
from fedsi.learning.client import LocalResult, LocalTrainer
from fedsi.learning.personal import halves
from fedsi.models.build import initial_parameters
from fedsi.tasks import next_word
from fedsi.tasks.task import Batch
from tests.fedsi.learning.test_block import EXPERIMENT, HEALTHY, Faulty

TUNED = EXPERIMENT.updated(
    {
        "personalisation.epochs": 3,
        "personalisation.learning_rate": 0.2,
        "client.max_steps": 1,
        "client.schedule": "cosine",
        "client.weight_decay": 0.1,
    }
)
HELDOUT = [16, 17, 19]


def slow(experiment: Experiment, start: torch.Tensor, client: int) -> list[float]:
    """Return loss and hits before and after SGD by autograd on one half, in float64."""
    model = BlockTrainer(experiment, HEALTHY).model
    examples = HEALTHY.examples(client)
    tune, score = (examples[places] for places in halves(examples))
    asked = next_word.batch(score)

    def losses(flat: torch.Tensor, batch: Batch) -> torch.Tensor:
        named = model.layout.views(flat)
        logits = model.logits(named, model.features(named, torch.from_numpy(batch.inputs).long()))
        every = torch.nn.functional.cross_entropy(
            logits.mT, torch.from_numpy(batch.targets).long(), reduction="none"
        )
        return every[torch.from_numpy(batch.asked)]

    flat = start.double()
    ends = [float(losses(flat, asked).sum())]
    settings = experiment.client.model_copy(update={"epochs": 3, "max_steps": None})
    batches = training_batches(
        tune, settings, None, seed=experiment.seed, round_number=0, client=client
    )
    for batch in map(next_word.batch, batches):
        leaf = flat.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(losses(leaf, batch).mean(), leaf)
        flat = flat * (1 - 0.2 * 0.1) - 0.2 * gradient
    return [*ends, float(losses(flat, asked).sum()), len(score), asked.count]


@pytest.mark.parametrize("changes", [{}, {"client.example_noise_multiplier": 1.0}])
def test_equals_the_slow_loop(changes: dict[str, float]) -> None:
    experiment = TUNED.updated({"server.averaging": "uniform", **changes})
    trainer = BlockTrainer(experiment, HEALTHY)
    start = initial_parameters(trainer.model, 0)
    rows = trainer.personalise(start, HELDOUT)
    columns = len(trainer.task.columns)
    for row, client in zip(rows, HELDOUT, strict=True):
        before, after, examples, tokens = slow(experiment, start, client)
        assert row[[0, 1, columns, columns + 1]].tolist() == [examples, tokens] * 2
        assert row[[2, columns + 2]].tolist() == pytest.approx([before, after], rel=1e-4)
        assert after < before


def test_learned_positions_begin_anywhere_when_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"architecture": "transformer", "positions": "learned", "heads": 1}
    keys = {**keys, "random_start": True}
    experiment = TUNED.updated({f"model.{key}": value for key, value in keys.items()})
    trainer = BlockTrainer(experiment, HEALTHY)
    seen: list[Batch] = []
    train = LocalTrainer.train

    def watched(own: LocalTrainer, batches: Iterable[Batch]) -> LocalResult:
        seen.extend(batches)
        return train(own, seen)

    monkeypatch.setattr(LocalTrainer, "train", watched)
    trainer.personalise(initial_parameters(trainer.model, 0), HELDOUT[:1])
    starts = [batch.positions[0, :, 0].tolist() for batch in seen if batch.positions is not None]
    assert len(starts) == len(seen) > 1
    assert len({tuple(one) for one in starts}) > 1


def test_what_is_scored_is_not_what_tunes_and_the_global_model_stays() -> None:
    trainer = BlockTrainer(TUNED, HEALTHY)
    start = initial_parameters(trainer.model, 0)
    kept = start.clone()
    rows = trainer.personalise(start, HELDOUT)
    assert torch.equal(start, kept)
    assert np.array_equal(trainer.personalise(start, HELDOUT[::-1]), rows[::-1])
    whole = trainer.evaluate(start, HELDOUT)
    assert (rows[:, 0] < whole[:, 0]).all()
    assert (rows[:, 0] >= whole[:, 0] // 2).all()


def test_clients_that_are_too_small_or_fail_are_told_apart() -> None:
    trainer = BlockTrainer(TUNED, Faulty())
    start = initial_parameters(trainer.model, 0)
    rows = trainer.personalise(start, [1, 2, 3])
    assert rows[0, 0] > 0
    assert np.isnan(rows[1]).all()
    assert not rows[2].any()


def test_the_settings_are_those_of_local_training_but_for_its_course() -> None:
    settings = tuning_settings(TUNED)
    assert (settings.epochs, settings.learning_rate, settings.max_steps) == (3, 0.2, None)
    assert settings.weight_decay == 0.1
    usual = tuning_settings(EXPERIMENT)
    assert (usual.epochs, usual.learning_rate) == (1, EXPERIMENT.client.learning_rate)


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), max_size=12), st.randoms())
def test_halves_follow_from_the_examples_whatever_their_order(
    texts: list[list[int]], random: object
) -> None:
    def rows(chosen: list[list[int]], width: int) -> np.ndarray:
        padded = np.zeros((len(chosen), width), np.int32)
        for row, text in zip(padded, chosen, strict=True):
            row[: len(text)] = text
        return padded

    tune, score = halves(rows(texts, 5))
    assert sorted([*tune, *score]) == list(range(len(texts)))
    sides = {tuple(texts[place]): "tune" for place in tune}
    assert not sides.keys() & {tuple(texts[place]) for place in score}
    assert len(score) <= (len(texts) + 1) // 2
    shuffled = texts.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again, _ = halves(rows(shuffled, 8))
    assert sorted(tuple(shuffled[place]) for place in again) == sorted(
        tuple(texts[place]) for place in tune
    )
    if len({tuple(text) for text in texts}) == len(texts):
        assert len(tune) == len(texts) // 2
