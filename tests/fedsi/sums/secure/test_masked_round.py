"""Masks: what one client sends looks uniform, and the sum of all is exact."""

import os
from hashlib import blake2b

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from fedsi.sums.secure import masks
from fedsi.sums.secure.masked_round import OWN_SEED, PRIVATE_KEY, MaskedRound
from fedsi.sums.secure.masks import add_streams, agreed_seed, public_key

ENTRIES = 20_000
UNLIKELY = 1e-6


def update(client: int, entries: int = ENTRIES) -> NDArray[np.int64]:
    """Return an update as fixed-point integers of usual size."""
    values = np.random.default_rng(client).normal(0, 0.01, entries)
    return np.rint(values * 2.0**36).astype(np.int64)


def chance_of_bytes(row: NDArray[np.int64]) -> float:
    """Return the p-value of Pearson's test that each byte of the integers is uniform.

    The eight bytes of an integer are tested apart, because an unmasked update has uniform low bytes
    and constant high ones.
    """
    planes = row.view(np.uint8).reshape(-1, 8)
    expected = len(row) / 256
    counts = [np.bincount(plane, minlength=256) for plane in planes.T]
    statistic = sum(float(((one - expected) ** 2 / expected).sum()) for one in counts)
    return float(chi2.sf(statistic, 8 * 255))


@pytest.fixture
def masked() -> MaskedRound:
    return MaskedRound(bytes(range(32)), np.array([7, 2, 9, 40, 3]))


def test_the_row_of_one_client_looks_uniform(masked: MaskedRound) -> None:
    row = update(9)
    assert chance_of_bytes(row) < UNLIKELY
    masked.add_masks(row, 9)
    assert chance_of_bytes(row) > UNLIKELY


def test_the_test_of_uniformity_fails_for_masks_of_fewer_bits(
    masked: MaskedRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks below 2^62 leave the highest bits of the update in sight."""

    def narrow(vector: NDArray[np.int64], streams: object) -> None:
        vector += np.random.default_rng(0).integers(0, 2**62, len(vector))

    monkeypatch.setattr("fedsi.sums.secure.masked_round.add_streams", narrow)
    row = update(9)
    masked.add_masks(row, 9)
    assert chance_of_bytes(row) < UNLIKELY


def test_without_the_own_seed_neighbours_could_unmask(masked: MaskedRound) -> None:
    """All pairwise masks removed, the own one still hides the row."""
    row = update(9)
    masked.add_masks(row, 9)
    for other in masked.graph[9]:
        seed = agreed_seed(masked.secret(PRIVATE_KEY, other), masked.public_keys[9])
        add_streams(row, [(seed, -1 if other > 9 else 1)])
    assert chance_of_bytes(row) > UNLIKELY
    add_streams(row, [(masked.secret(OWN_SEED, 9), -1)])
    assert (row == update(9)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.sampled_from([None, 2, 4]), st.integers(0, 9000))
def test_the_masks_of_all_cancel(clients: int, neighbours: int | None, entries: int) -> None:
    masked = MaskedRound(os.urandom(32), np.arange(clients) * 5 + 1, neighbours)
    total = np.zeros(entries, np.int64)
    for client in masked.graph:
        row = update(client, entries)
        masked.add_masks(row, client)
        total += row
    add_streams(total, [(masked.secret(OWN_SEED, client), -1) for client in masked.graph])
    assert (total == sum(update(client, entries) for client in masked.graph)).all()


def test_streams_are_those_of_the_cipher_in_one_pass() -> None:
    seed, size = b"s" * 32, 2 * masks._PART + 3
    key = blake2b(seed, digest_size=16, person=b"fedsi mask").digest()
    whole = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * size))
    vector = np.zeros(size, np.int64)
    add_streams(vector, [(seed, 1)])
    assert vector.tobytes() == whole
    add_streams(vector, [(seed, -1)])
    assert not vector.any()


def test_two_clients_agree_and_a_third_does_not() -> None:
    first, second, third = (bytes([n]) * 32 for n in (1, 2, 3))
    agreed = agreed_seed(first, public_key(second))
    assert agreed == agreed_seed(second, public_key(first))
    assert agreed != agreed_seed(third, public_key(second))


def test_secrets_differ_between_rounds_clients_and_kinds(masked: MaskedRound) -> None:
    other = MaskedRound(bytes(32), masked.participants)
    secrets = {
        one.secret(kind, client)
        for one in (masked, other)
        for kind in (PRIVATE_KEY, OWN_SEED)
        for client in masked.graph
    }
    assert len(secrets) == 2 * 2 * 5
