"""The rows that one token reads, against the slow function of all rows."""

import pytest
import torch

from fedsi.experiment import ModelSettings
from fedsi.kernels.cpu.active_rows import active_feedforward
from fedsi.models.feedforward.top_k import PART, gates_of


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_one_token_reads_only_the_rows_of_its_groups(activation: str) -> None:
    """Rows of unused groups are NaN for the fast function, which returns what all rows give."""
    some = ModelSettings(
        architecture="transformer", embedding_size=8, feedforward="top_k", feedforward_size=400,
        activation=activation,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    named = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64)
        for name, shape in PART.shapes(some).items()
    }
    for token in torch.randn(12, 1, 1, 8, generator=generator, dtype=torch.float64):
        expected = PART.run(some, named, token)
        unused = gates_of(some, token.flatten() @ named["router"]) == 0
        assert 0 < unused.sum() < 25
        spoilt = unused.repeat_interleave(16).unsqueeze(1)
        rows = {key: named[key].masked_fill(spoilt, torch.nan) for key in ("inner", "outer")}
        found = active_feedforward(some, {**named, **rows}, token)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    none = active_feedforward(some, {**named, "router": torch.zeros_like(named["router"])}, token)
    assert not none.any()
