"""Metrics against cases counted by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.protocol import EOS, OOV
from fedsi.tasks.next_word import COLUMNS, counts, metrics, perplexity
from fedsi.tasks.task import Batch

A, B, C = 4, 5, 6
UNIFORM = torch.full((8,), -math.log(8), dtype=torch.float64)


def asked(targets: list[int]) -> Batch:
    tokens = np.array([targets], np.int32)
    return Batch(tokens, tokens)


def counted(*predictions: tuple[int, list[int]]) -> dict[str, float]:
    """Count targets whose logits rank the given ids first, second, ...; all others are equal."""
    logits = torch.zeros(len(predictions), 8)
    for row, (_, ranking) in zip(logits, predictions, strict=True):
        for place, token in enumerate(ranking):
            row[token] = 10.0 - place
    row = counts(logits, asked([target for target, _ in predictions]), UNIFORM)
    return dict(zip(COLUMNS, row.tolist(), strict=True))


def test_masks_by_hand() -> None:
    found = counted(
        (A, [A, B, C]),  # a word, hit
        (B, [A, B, C]),  # a word, among three
        (C, [A, B, EOS, C]),  # a word, fourth
        (OOV, [OOV]),  # out of vocabulary, hit
        (EOS, [EOS]),  # end, hit
        (EOS, [A]),  # end, missed
    )
    assert (found["tokens"], found["hits"]) == (6, 3)
    assert (found["tokens_no_oov"], found["hits_no_oov"]) == (5, 2)
    assert (found["tokens_no_oov_no_eos"], found["hits_no_oov_no_eos"]) == (3, 1)
    assert found["hits_at_3"] == 2
    scores = metrics(np.array([[*found.values()]]))
    assert scores["accuracy"] == 3 / 6
    assert scores["accuracy_no_oov"] == 2 / 5
    assert scores["accuracy_no_oov_no_eos"] == 1 / 3
    assert scores["recall_at_3"] == 2 / 3


def test_losses_and_perplexities_by_hand() -> None:
    logits = torch.log(torch.tensor([[0, 0, 0.25, 0.25, 0.5], [0, 0, 0.125, 0.75, 0.125]]))
    unigram = torch.log(torch.tensor([0, 0, 0.5, 0.25, 0.25], dtype=torch.float64))
    scores = metrics(counts(logits, asked([EOS, OOV]), unigram)[None])
    assert scores["loss"] == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, rel=1e-6)
    assert scores["unigram_loss"] == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert scores["perplexity"] == pytest.approx(math.sqrt(4 * 4 / 3), rel=1e-6)
    assert scores["perplexity_no_oov"] == pytest.approx(4, rel=1e-6)


def test_quantiles_over_clients_leave_out_those_without_words() -> None:
    rows = np.zeros((4, len(COLUMNS)))
    words, hits = COLUMNS.index("tokens_no_oov_no_eos"), COLUMNS.index("hits_no_oov_no_eos")
    rows[:3, words], rows[:3, hits] = 10, [1, 5, 9]
    scores = metrics(rows)
    assert scores["accuracy_no_oov_no_eos"] == 0.5
    assert scores["client_accuracy_p10"] == pytest.approx(0.18)
    assert scores["client_accuracy_p50"] == 0.5
    assert scores["client_accuracy_p90"] == pytest.approx(0.82)


def test_nothing_to_count_is_not_a_number() -> None:
    scores = metrics(np.zeros((2, len(COLUMNS))))
    assert math.isnan(scores["loss"])
    assert math.isnan(scores["accuracy"])
    assert math.isnan(scores["client_accuracy_p50"])


def test_perplexity_overflows_to_infinity() -> None:
    assert perplexity(1e6) == math.inf
    assert math.isnan(perplexity(math.nan))


@given(st.lists(st.integers(2, 7), min_size=1, max_size=12), st.integers(1, 11))
def test_counting_in_pieces_is_counting_at_once(targets: list[int], cut: int) -> None:
    logits = torch.randn(len(targets), 8, generator=torch.Generator().manual_seed(len(targets)))
    whole = counts(logits, asked(targets), UNIFORM)
    parts = [
        counts(logits[part], asked(targets[part]), UNIFORM)
        for part in (slice(None, cut), slice(cut, None))
    ]
    # Each part counts as a sequence.
    assert np.sum(parts, axis=0).tolist() == pytest.approx(
        (whole + np.eye(len(COLUMNS))[0]).tolist()
    )
