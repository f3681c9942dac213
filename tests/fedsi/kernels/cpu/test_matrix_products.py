"""Products in tiles, and PyTorch's in their place, in all types and with ragged edges."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedsi.errors import UserError
from fedsi.experiment import ClientSettings
from fedsi.kernels.cpu import tiles
from fedsi.kernels.cpu.matrix_products import Products

SIZES = st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 70))
PRECISIONS = ["float32", *(["bfloat16"] if tiles.HAS_BFLOAT16 else [])]
EVERY = [*product(PRECISIONS, ["own"]), ("float32", "torch")]


def factors(rows: int, depth: int, columns: int, precision: str) -> tuple[Tensor, Tensor]:
    """Random numbers exact in bfloat16, so that rounding is tested apart from products."""
    generator = torch.Generator().manual_seed(rows * depth + columns)
    left = torch.randn(rows, depth, generator=generator)
    right = torch.randn(depth, columns, generator=generator)
    if precision == "bfloat16":
        left, right = (x.bfloat16().float() for x in (left, right))
    return left, right


def products_of(precision: str, products: str) -> Products:
    settings = {"precision": precision, "products": products}
    return Products(ClientSettings.model_validate(settings))


@pytest.mark.parametrize(("precision", "products"), EVERY)
@settings(max_examples=40)
@given(sizes=SIZES, keep=st.sampled_from([0.0, 1.0, -0.5]), turned=st.booleans())
def test_an_update_is_a_matrix_product(
    precision: str, products: str, sizes: tuple[int, int, int], keep: float, turned: bool
) -> None:
    left, right = factors(*sizes, precision)
    out = torch.full((sizes[0], sizes[2]), torch.nan if keep == 0 else 2.0)
    expected = (0.0 if keep == 0 else keep * out) + 0.5 * (left @ right)
    given_left = left.t().contiguous().t() if turned else left
    products_of(precision, products).update(out, given_left, right, keep, 0.5)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("precision", "products"), EVERY)
@settings(max_examples=40)
@given(sizes=SIZES)
def test_inner_products_are_a_matrix_product(
    precision: str, products: str, sizes: tuple[int, int, int]
) -> None:
    left, right = factors(*sizes, precision)
    out = torch.full((sizes[0], sizes[2]), torch.nan)
    products_of(precision, products).inner(out, left, right.t().contiguous())
    torch.testing.assert_close(out, left @ right, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not tiles.HAS_BFLOAT16, reason="this processor has no products of bfloat16")
def test_factors_are_rounded_to_the_nearest_bfloat16() -> None:
    left, right = factors(9, 33, 40, "float32")
    out = torch.zeros(9, 40)
    Products(ClientSettings(precision="bfloat16")).update(out, left, right)
    expected = left.bfloat16().float() @ right.bfloat16().float()
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_does_not_depend_on_its_neighbours(precision: str) -> None:
    left, right = factors(19, 33, 45, precision)
    products = products_of(precision, "own")
    together, alone = torch.zeros(19, 45), torch.zeros(19, 45)
    products.update(together, left, right)
    for i in range(19):
        products.update(alone[i : i + 1], left[i : i + 1], right)
    assert torch.equal(together, alone)


def test_a_processor_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "HAS_BFLOAT16", False)
    with pytest.raises(UserError, match="needs a processor with AVX-512 BF16"):
        Products(ClientSettings(precision="bfloat16"))
