"""Contract of all output layers in the table; a new entry is tested automatically."""

from collections.abc import Iterator

import numpy as np
import pytest

from fedsi import UserError
from fedsi.data.protocol import FIRST_WORD
from fedsi.inference.top_k.layer import (
    CANDIDATES,
    RANK,
    Array,
    Choice,
    OutputRows,
    TopK,
    check_choice,
)
from fedsi.inference.top_k.parts import InParts
from fedsi.inference.top_k.table import OUTPUT_LAYERS
from tests.output_layers import NAMES, near_directions

every = pytest.mark.parametrize("name", NAMES)
EXACT = ("exact", "hire_certified")
"""Entries whose results have the bits of the exact layer."""
SIZES = ((203, 30), (48, 64), (7, 5))
"""Rows and size: of whole panels and steps of the kernel, and not."""


def built(name: str, rows: OutputRows, states: Array, choice: Choice | None = None) -> TopK:
    return OUTPUT_LAYERS[name].build(rows, choice or Choice(), states)


def slowly(rows: OutputRows, state: Array, count: int) -> list[int]:
    """Return the highest rows by sorting all scores, of equal ones the lower first."""
    scores = rows.weight.astype(np.float64) @ state + rows.bias
    order = np.argsort(-scores[rows.first :], kind="stable")
    return [int(row) + rows.first for row in order[:count]]


@every
@pytest.mark.parametrize("size", SIZES)
def test_the_highest_rows_are_found(name: str, size: tuple[int, int]) -> None:
    rows, states = near_directions(*size, 240)
    layer, exact = (built(one, rows, states[40:]) for one in (name, "exact"))
    right = 0
    for state in states[:40]:
        best, expected = layer.best(state, 3), exact.best(state, 3)
        assert expected.ids.tolist() == slowly(rows, state, 3)
        assert all(best.ids >= FIRST_WORD)
        assert all(np.diff(best.scores) <= 0)
        assert best.of_all.shape == (len(rows),)
        np.testing.assert_allclose(best.scores, best.of_all[best.ids])
        assert name != "hire_certified" or best.scores.tolist() == expected.scores.tolist()
        right += best.ids.tolist() == expected.ids.tolist()
    assert right >= (40 if name in EXACT else 30 if name == "int8" else 38)


@every
def test_fewer_words_than_asked_for_and_states_of_zeros(name: str) -> None:
    rows, states = near_directions(9, 6, 80)
    layer = built(name, rows, states, Choice(count=8))
    for state in (states[0], np.zeros(6, np.float32)):
        best = layer.best(state, 8)
        assert sorted(best.ids.tolist()) == list(range(FIRST_WORD, 9))
        assert best.ids[0] == slowly(rows, state, 1)[0]


@every
def test_of_equal_rows_the_lower_comes_first(name: str) -> None:
    rows = OutputRows(np.ones((40, 4), np.float32), np.zeros(40, np.float32))
    layer = built(name, rows, np.eye(4, dtype=np.float32))
    assert layer.best(np.ones(4, np.float32), 3).ids.tolist() == [4, 5, 6]


@every
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_parts_of_the_vocabulary_give_the_same(name: str, parts: int) -> None:
    rows, states = near_directions(203, 30, 240)

    def build(part: OutputRows) -> TopK:
        return built(name, part, states[40:])

    exact = built("exact", rows, states)
    with InParts(rows, parts, build) as layer:
        best = [layer.best(state, 3) for state in states[:20]]
    expected = [exact.best(state, 3) for state in states[:20]]
    same = [a.ids.tolist() == b.ids.tolist() for a, b in zip(best, expected, strict=True)]
    assert np.mean(same) >= (1 if name in EXACT else 0.75 if name == "int8" else 0.9)
    if name in EXACT:
        assert all(
            a.scores.tolist() == b.scores.tolist() for a, b in zip(best, expected, strict=True)
        )


def given(option: str, value: int) -> Choice:
    return Choice(candidates=value) if option == CANDIDATES else Choice(rank=value)


def impossible(keys: frozenset[str]) -> Iterator[tuple[Choice, str]]:
    if CANDIDATES in keys:
        yield Choice(count=5, candidates=4), "is below the 5 words that are asked for; give at"
    if RANK in keys:
        yield Choice(rank=7), "is above the size of the output layer's states, 6; give at most 6"


@every
def test_options_are_used_or_refused(name: str) -> None:
    kind = OUTPUT_LAYERS[name]
    rows, states = near_directions(60, 6, 80)
    for option in (CANDIDATES, RANK):
        if option in kind.keys:
            check_choice(kind, name, given(option, 4), rows)
            built(name, rows, states, given(option, 4)).best(states[0], 3)
        else:
            with pytest.raises(UserError, match=f"{option} 4 has no effect with .* {name}"):
                check_choice(kind, name, given(option, 4), rows)
    for choice, sentence in impossible(kind.keys):
        with pytest.raises(UserError, match=sentence):
            check_choice(kind, name, choice, rows)
