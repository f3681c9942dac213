from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.splits import heldout_groups

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
    # A client's fate does not hang on the others': the first in hash order go first.
    assert heldout_groups(names, 0.05) <= chosen
