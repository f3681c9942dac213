"""The graph of a masked round."""

import numpy as np
import pytest

from fedsi.sums.secure.graph import enough_neighbours, neighbours_of, threshold


@pytest.mark.parametrize(("clients", "neighbours"), [(1, 0), (2, 1), (7, 4), (8, 7), (50, 12)])
def test_neighbours_are_mutual_and_reach_everyone(clients: int, neighbours: int) -> None:
    order = np.random.default_rng(0).permutation(clients) * 3
    graph = neighbours_of(order, neighbours)
    assert {len(others) for others in graph.values()} == {neighbours}
    assert all(one in graph[other] for one, others in graph.items() for other in others)
    reached, new = set(), {int(order[0])}
    while new:
        reached |= new
        new = {other for one in new for other in graph[one]} - reached
    assert reached == set(order.tolist())


def test_the_number_of_neighbours_grows_like_a_logarithm() -> None:
    found = [enough_neighbours(n) for n in (1, 2, 20, 100, 500, 5000)]
    assert found == [0, 1, 19, 46, 72, 100]
    assert [threshold(k) for k in found] == [1, 1, 9, 19, 30, 41]
