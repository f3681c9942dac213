"""How badly runs ended, in words."""

from dataclasses import replace

import pytest

from server.runs.degree import degree
from tests.summaries import SUMMARY, summary_of


@pytest.mark.parametrize(
    ("loss", "trained", "words"),
    [
        (5.9, 5.0, ""),
        (6.0, 5.0, "0.000 nats worse than the unigram model"),
        (
            7.43,
            151.0,
            "1.430 nats worse than the unigram model; "
            "local training diverged: the loss of the last cohort is 151.000",
        ),
        (5.9, 7.0, ""),
        (5.9, 9.1, "local training diverged: the loss of the last cohort is 9.100"),
        (None, None, "its loss is not finite"),
    ],
)
def test_a_run_is_judged_against_the_unigram_model(
    loss: float | None, trained: float | None, words: str
) -> None:
    assert degree(replace(summary_of(loss), train_loss=trained)) == words


def test_a_task_without_unigram_model_has_only_a_limit() -> None:
    assert degree(replace(SUMMARY, unigram_loss=None, train_loss=99.0)) == ""
