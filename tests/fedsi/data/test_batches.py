from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsi.data.batches import evaluation_batches, training_batches, trim
from fedsi.data.protocol import PAD, Tokens
from fedsi.experiment import ClientSettings


def numbered(count: int) -> Tokens:
    """Return examples that are all different."""
    return np.arange(1, 2 * count + 1, dtype=np.int32).reshape(count, 2)


def drawn(
    count: int, settings: ClientSettings, cap: int | None = None, key: tuple[int, ...] = (0, 1, 2)
) -> list[list[int]]:
    seed, round_number, client = key
    batches = training_batches(
        numbered(count), settings, cap, seed=seed, round_number=round_number, client=client
    )
    return [batch[:, 0].tolist() for batch in batches]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3))
def test_each_epoch_uses_each_example_once(count: int, batch: int, epochs: int) -> None:
    batches = drawn(count, ClientSettings(batch_size=batch, epochs=epochs))
    per_epoch = -(-count // batch)
    assert len(batches) == per_epoch * epochs
    for epoch in range(epochs):
        mine = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(chain.from_iterable(mine)) == numbered(count)[:, 0].tolist()
        assert all(len(b) == batch for b in mine[:-1])


def test_order_is_a_function_of_seed_round_and_client() -> None:
    settings = ClientSettings()
    orders = {
        key: drawn(30, settings, key=key) for key in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]
    }
    assert len({str(order) for order in orders.values()}) == 4
    assert drawn(30, settings) == orders[0, 1, 2]


def test_caps() -> None:
    settings = ClientSettings(batch_size=4, epochs=3, max_steps=5)
    batches = drawn(100, settings, cap=6)
    assert [len(batch) for batch in batches] == [4, 2, 4, 2, 4]
    assert len(set(chain.from_iterable(batches))) == 6
    others = drawn(100, settings, cap=6, key=(0, 2, 2))
    assert set(chain.from_iterable(others)) != set(chain.from_iterable(batches))


def test_evaluation_takes_all_examples_shortest_first_in_a_block() -> None:
    examples = np.array([[1, 5, 6, 2], [1, 5, 2, 0], [1, 2, 0, 0]] * 2, dtype=np.int32)
    assert [b.shape for b in evaluation_batches([examples], 2)] == [(2, 2), (2, 3), (2, 4)]
    in_blocks = evaluation_batches([examples[:3], examples[3:], examples[:0]], 2)
    assert [b.shape for b in in_blocks] == [(2, 3), (1, 4)] * 2


def test_trim_cuts_common_padding_only() -> None:
    rows = np.array([[1, 5, 2, PAD, PAD], [1, 2, PAD, PAD, PAD]], dtype=np.int32)
    assert trim(rows).tolist() == [[1, 5, 2], [1, 2, PAD]]
