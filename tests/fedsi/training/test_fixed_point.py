import random
from math import fsum

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsi.training.fixed_point import (
    CACHED,
    FRACTION_BITS,
    add_encoded,
    decode,
    encode,
    largest_contribution,
)

values = st.floats(-1e4, 1e4, width=32)


@given(st.lists(values, min_size=1, max_size=30))
def test_one_value_is_kept_to_the_resolution(numbers: list[float]) -> None:
    tensor = torch.tensor(numbers)
    error = (decode(encode(tensor)) - tensor.double()).abs().max()
    assert error <= 2.0 ** -(FRACTION_BITS + 1)


@given(st.lists(values, min_size=2, max_size=30), st.randoms())
def test_sums_do_not_depend_on_order(numbers: list[float], shuffler: random.Random) -> None:
    encoded = [int(encode(torch.tensor(number))) for number in numbers]
    total = sum(encoded)
    shuffler.shuffle(encoded)
    assert sum(encoded) == total
    assert abs(total * 2.0**-FRACTION_BITS - fsum(numbers)) <= len(numbers) * 2.0**-FRACTION_BITS


@given(st.integers(1, 10**6))
def test_a_cohort_at_the_limit_does_not_overflow(cohort: int) -> None:
    limit = torch.tensor(largest_contribution(cohort), dtype=torch.float64)
    assert 0 < int(encode(limit)) * cohort < 2**63


def test_adding_in_parts_is_adding_at_once() -> None:
    values = torch.randn(2 * CACHED + 17, generator=torch.Generator().manual_seed(0))
    sums = torch.arange(len(values))
    expected = sums + encode(values)
    add_encoded(values, sums)
    assert torch.equal(sums, expected)
