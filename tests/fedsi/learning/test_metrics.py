"""Metrics against cases counted by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.protocol import EOS, OOV
from fedsi.learning.metrics import COLUMNS, Evaluation, perplexity, summarise

A, B, C = 4, 5, 6
UNIFORM = torch.full((8,), -math.log(8), dtype=torch.float64)


def counted(*predictions: tuple[int, list[int]]) -> Evaluation:
    """Count targets whose logits rank the given ids first, second, ...; all others are equal."""
    logits = torch.zeros(len(predictions), 8)
    for row, (_, ranking) in zip(logits, predictions, strict=True):
        for place, token in enumerate(ranking):
            row[token] = 10.0 - place
    counts = Evaluation()
    counts.add(logits, torch.tensor([target for target, _ in predictions]), UNIFORM)
    return counts


def test_masks_by_hand() -> None:
    counts = counted(
        (A, [A, B, C]),  # a word, hit
        (B, [A, B, C]),  # a word, among three
        (C, [A, B, EOS, C]),  # a word, fourth
        (OOV, [OOV]),  # out of vocabulary, hit
        (EOS, [EOS]),  # end, hit
        (EOS, [A]),  # end, missed
    )
    assert (counts.tokens, counts.hits) == (6, 3)
    assert (counts.tokens_no_oov, counts.hits_no_oov) == (5, 2)
    assert (counts.tokens_no_oov_no_eos, counts.hits_no_oov_no_eos) == (3, 1)
    assert counts.hits_at_3 == 2
    metrics = summarise(np.array([counts.row()]))
    assert metrics.accuracy == 3 / 6
    assert metrics.accuracy_no_oov == 2 / 5
    assert metrics.accuracy_no_oov_no_eos == 1 / 3
    assert metrics.recall_at_3 == 2 / 3


def test_losses_and_perplexities_by_hand() -> None:
    logits = torch.log(torch.tensor([[0, 0, 0.25, 0.25, 0.5], [0, 0, 0.125, 0.75, 0.125]]))
    counts = Evaluation()
    unigram = torch.log(torch.tensor([0, 0, 0.5, 0.25, 0.25], dtype=torch.float64))
    counts.add(logits, torch.tensor([EOS, OOV]), unigram)
    metrics = summarise(np.array([counts.row()]))
    assert metrics.loss == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, rel=1e-6)
    assert metrics.unigram_loss == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert metrics.perplexity == pytest.approx(math.sqrt(4 * 4 / 3), rel=1e-6)
    assert metrics.perplexity_no_oov == pytest.approx(4, rel=1e-6)


def test_quantiles_over_clients_leave_out_those_without_words() -> None:
    rows = np.zeros((4, len(COLUMNS)))
    words, hits = COLUMNS.index("tokens_no_oov_no_eos"), COLUMNS.index("hits_no_oov_no_eos")
    rows[:3, words], rows[:3, hits] = 10, [1, 5, 9]
    metrics = summarise(rows)
    assert metrics.accuracy_no_oov_no_eos == 0.5
    assert metrics.client_accuracy_p10 == pytest.approx(0.18)
    assert metrics.client_accuracy_p50 == 0.5
    assert metrics.client_accuracy_p90 == pytest.approx(0.82)


def test_nothing_to_count_is_not_a_number() -> None:
    metrics = summarise(np.zeros((2, len(COLUMNS))))
    assert math.isnan(metrics.loss)
    assert math.isnan(metrics.accuracy)
    assert math.isnan(metrics.client_accuracy_p50)


def test_perplexity_overflows_to_infinity() -> None:
    assert perplexity(1e6) == math.inf
    assert math.isnan(perplexity(math.nan))


@given(st.lists(st.integers(2, 7), min_size=1, max_size=12), st.integers(1, 11))
def test_counting_in_pieces_is_counting_at_once(targets: list[int], cut: int) -> None:
    logits = torch.randn(len(targets), 8, generator=torch.Generator().manual_seed(len(targets)))
    ids = torch.tensor(targets)
    whole, pieces = Evaluation(), Evaluation()
    whole.add(logits, ids, UNIFORM)
    for part in (slice(None, cut), slice(cut, None)):
        pieces.add(logits[part], ids[part], UNIFORM)
    assert pieces.row() == pytest.approx(whole.row())
