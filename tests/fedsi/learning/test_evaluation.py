"""Joined evaluations against those of clients one by one."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fedsi.experiment import ModelSettings
from fedsi.learning import evaluation
from fedsi.learning.block import BlockTrainer
from fedsi.learning.evaluation import JoinedEvaluation, can_join_evaluations, evaluate_client
from fedsi.models.build import initial_parameters
from fedsi.tasks.next_word import COLUMNS, TASK
from fedsi.tasks.task import Batch
from tests.fedsi.learning.test_block import EXPERIMENT, Faulty
from tests.fedsi.learning.test_first_steps import MODELS, NAMES, VOCABULARY, batch_of, model_of

UNIGRAM = torch.randn(VOCABULARY, dtype=torch.float64)
LOSSES = [COLUMNS.index("loss"), COLUMNS.index("loss_no_oov")]


def some_batches() -> list[Batch]:
    rng = np.random.default_rng(0)
    batches = [
        batch_of(rng.integers(1, 12, rng.integers(1, 17)).tolist(), rng, gaps=gaps)
        for gaps in (False, True, False, False, True, False)
    ]
    silent = Batch(batches[0].inputs, np.zeros_like(batches[0].targets))
    return [*batches[:3], silent, *batches[3:]]


@pytest.mark.parametrize("settings", MODELS, ids=NAMES)
def test_counts_are_those_of_plain_logits(
    settings: ModelSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "JOINED_TARGETS", 150)
    model, batches = model_of(settings), some_batches()
    start = initial_parameters(model, 0)
    joined = JoinedEvaluation(TASK, model, UNIGRAM)
    joined.begin(start)
    found = dict(joined.counts(enumerate(batches)))
    assert list(found) == list(range(len(batches)))
    for number, batch in enumerate(batches):
        (alone,) = joined.counts([(0, batch)])
        np.testing.assert_array_equal(alone[1], found[number])
        views = model.layout.views(start)
        outputs = model.logits(views, model.features(views, torch.from_numpy(batch.inputs).long()))[
            torch.from_numpy(batch.asked)
        ]
        for expected in (
            TASK.counts(outputs, batch, UNIGRAM),
            evaluate_client(TASK, model, views, [batch], UNIGRAM),
        ):
            np.testing.assert_allclose(found[number], expected, rtol=1e-6)
            np.testing.assert_array_equal(
                np.delete(found[number], LOSSES)[:-1], np.delete(expected, LOSSES)[:-1]
            )


def test_a_client_that_fails_after_its_first_batch_fails_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = BlockTrainer(EXPERIMENT, Faulty())
    assert can_join_evaluations(trainer.task, trainer.model)
    start, clients = initial_parameters(trainer.model, 0), [5, 0, 2, 1, 3]
    drawn = trainer._batches

    def failing(client: int) -> Iterator[Batch]:
        yield from drawn(client)
        if client == 0:
            raise OSError("the disk is gone")

    healthy = trainer.evaluate(start, clients)
    monkeypatch.setattr(trainer, "_batches", failing)
    rows = trainer.evaluate(start, clients)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, True, False, False]
    np.testing.assert_array_equal(rows[[0, 3, 4]], healthy[[0, 3, 4]])
    alone = np.concatenate([trainer.evaluate(start, [client]) for client in (5, 1, 3)])
    np.testing.assert_array_equal(alone, healthy[[0, 3, 4]])


def test_a_model_that_is_not_finite() -> None:
    trainer = BlockTrainer(EXPERIMENT, Faulty())
    start = initial_parameters(trainer.model, 0).fill_(np.nan)
    row = dict(zip(COLUMNS, trainer.evaluate(start, [0])[0], strict=True))
    assert np.isnan(row["loss"])
    assert row["hits"] == row["hits_at_3"] == 0
    assert row["tokens"] > 0
