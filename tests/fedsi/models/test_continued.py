"""Reading a text in pieces of any size equals reading it at once."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi.errors import UserError
from fedsi.models.model import Memory, Model
from fedsi.models.positions.table import ENCODINGS
from tests.built_in import build

VOCABULARY = 11
LENGTH = 9
MODELS: list[dict[str, Any]] = [
    {"architecture": "cifg"},
    {"architecture": "si_cifg", "embedding_normalisation": "none"},
    {"architecture": "lstm", "projection": False},
    {"architecture": "lstm", "recurrent_projection": True, "tied_output": True},
    {"architecture": "mamba", "state_size": 5},
    *({"architecture": "transformer", "positions": name} for name in sorted(ENCODINGS)),
    *({"architecture": "si_transformer", "positions": name} for name in sorted(ENCODINGS)),
]


def model(**changes: Any) -> Model:
    sizes = {"embedding_size": 8, "hidden_size": 6, "heads": 2, "feedforward_size": 10}
    return build(VOCABULARY, **{**sizes, "max_length": LENGTH, **changes})


def draw(lm: Model, *axes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    flat = torch.randn(*axes, lm.layout.size, generator=generator, dtype=torch.float64)
    return flat, torch.randint(0, VOCABULARY, (*axes, 2, LENGTH), generator=generator)


@pytest.mark.parametrize("changes", MODELS, ids=str)
@settings(max_examples=12)
@given(cuts=st.sets(st.integers(1, LENGTH - 1)), clients=st.sampled_from([(), (3,)]))
def test_pieces_are_the_whole(
    changes: dict[str, Any], cuts: set[int], clients: tuple[int, ...]
) -> None:
    lm = model(**changes)
    flat, ids = draw(lm, *clients)
    parameters = lm.layout.views(flat)
    memory: Memory = []
    pieces = []
    edges = [0, *sorted(cuts), LENGTH]
    for start, end in pairwise(edges):
        features, memory = lm.continued(parameters, ids[..., start:end], memory)
        pieces.append(lm.logits(parameters, features))
    whole = lm.logits(parameters, lm.features(parameters, ids))
    torch.testing.assert_close(torch.cat(pieces, -2), whole, rtol=0, atol=1e-10)


@pytest.mark.parametrize("changes", MODELS, ids=str)
def test_a_memory_can_be_continued_in_several_ways(changes: dict[str, Any]) -> None:
    lm = model(**changes)
    flat, ids = draw(lm)
    parameters = lm.layout.views(flat)
    _, memory = lm.continued(parameters, ids[:, :4], [])
    one, _ = lm.continued(parameters, ids[:, 4:5], memory)
    lm.continued(parameters, (ids[:, 4:7] + 1) % VOCABULARY, memory)
    again, _ = lm.continued(parameters, ids[:, 4:5], memory)
    assert torch.equal(one, again)


def test_reading_beyond_the_learned_positions_is_refused() -> None:
    lm = model(architecture="transformer", positions="learned")
    flat, ids = draw(lm)
    parameters = lm.layout.views(flat)
    _, memory = lm.continued(parameters, ids, [])
    with pytest.raises(UserError, match="10 tokens is longer than the 9 learned"):
        lm.continued(parameters, ids[:, :1], memory)
