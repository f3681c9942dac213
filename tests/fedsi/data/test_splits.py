import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.splits import heldout_groups, is_heldout_sentence

clients = st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcdefg"), min_size=1)


@given(clients, st.floats(0.05, 0.95))
def test_whole_groups_and_never_all_or_none(group_of: dict[str, str], fraction: float) -> None:
    chosen = heldout_groups(group_of, fraction)
    groups = set(group_of.values())
    assert chosen <= groups
    if len(groups) > 1:
        assert 0 < len(chosen) < len(groups)
        held = sum(group in chosen for group in group_of.values())
        assert held <= fraction * len(group_of) or len(chosen) == 1
    else:
        assert not chosen


def test_clients_without_groups_are_held_out_to_the_share() -> None:
    names = {f"client {k}": f"client {k}" for k in range(1000)}
    chosen = heldout_groups(names, 0.1)
    assert len(chosen) == 100
    # A client's split does not depend on other clients: the order is that of hashes.
    assert heldout_groups(names, 0.05) <= chosen


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9])
def test_sentences_are_held_out_to_the_share_for_each_client_anew(fraction: float) -> None:
    held = np.array(
        [
            [is_heldout_sentence(client, f"sentence {n}", fraction) for n in range(4000)]
            for client in ("ann", "bob")
        ]
    )
    sigma = np.sqrt(fraction * (1 - fraction) / 4000)
    np.testing.assert_allclose(held.mean(1), fraction, atol=4 * sigma)
    # One client's sentences do not affect another's split.
    both, variance = (held[0] & held[1]).mean(), fraction**2 * (1 - fraction**2)
    assert abs(both - fraction**2) < 4 * np.sqrt(variance / 4000)


@given(st.text(), st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_sentence_held_out_stays_so_when_more_are(
    client: str, text: str, one: float, other: float
) -> None:
    less, more = sorted([one, other])
    assert is_heldout_sentence(client, text, less) <= is_heldout_sentence(client, text, more)


def test_odd_characters_are_hashed_too() -> None:
    # Pinned: caches of other machines and versions hold the same split.
    held = [is_heldout_sentence("\ud800", f"\udfff {n}", 0.5) for n in range(8)]
    assert held == [False, False, False, False, True, True, False, False]
    assert len(heldout_groups({f"\ud800{k}": f"\ud800{k}" for k in range(10)}, 0.3)) == 3
