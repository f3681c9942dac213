"""Shares of a secret: any t of n give it, and t - 1 fit every secret."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi.sums.secure.shares import PRIME, SHARE_BYTES, polynomial, reconstructed, share


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 8), st.data())
def test_any_shares_of_the_threshold_give_the_secret(
    secret: bytes, threshold: int, data: st.DataObject
) -> None:
    coefficients = polynomial(secret, b"seed", threshold)
    places = data.draw(st.sets(st.integers(0, 600), min_size=threshold, max_size=threshold))
    shares = {place: share(coefficients, place) for place in places}
    assert reconstructed(shares, 32) == secret
    for place, one in shares.items():
        slow = sum(c * (place + 1) ** power for power, c in enumerate(coefficients)) % PRIME
        assert one == slow.to_bytes(SHARE_BYTES, "little")


def test_one_share_less_fits_every_secret() -> None:
    coefficients = polynomial(b"\x01" * 32, b"seed", 3)
    known = {place: share(coefficients, place) for place in (4, 9)}

    def with_third(value: int) -> int:
        third = {0: value.to_bytes(SHARE_BYTES, "little")}
        return int.from_bytes(reconstructed({**known, **third}, SHARE_BYTES), "little")

    for guess in (b"\x02" * 32, b"\xff" * 32):
        wanted, at_zero = int.from_bytes(guess, "little"), with_third(0)
        slope = with_third(1) - at_zero
        third = (wanted - at_zero) * pow(slope, -1, PRIME) % PRIME
        assert with_third(third) == wanted


def test_shares_of_two_secrets_are_refused() -> None:
    shares = {
        place: share(polynomial(bytes([place]) * 32, b"seed", 3), place) for place in (1, 2, 3)
    }
    with pytest.raises(ValueError, match="not those of one secret"):
        reconstructed(shares, 32)
