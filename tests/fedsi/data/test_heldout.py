"""The evaluated sample of held-out clients, and its division into validation and test clients."""

from dataclasses import replace

import numpy as np
import pytest

from fedsi.data.heldout import are_test_clients, heldout_sample
from fedsi.data.population import Description

DESCRIPTION = Description("c", "0", "0", 100, 60, 1, 1, 10, "count", 20, 1.0)


def test_fewer_are_a_sample_of_more_and_keep_their_part() -> None:
    many, few = heldout_sample(DESCRIPTION, 40), heldout_sample(DESCRIPTION, 10)
    assert set(few) < set(many) <= set(range(100, 160))
    assert list(few) == sorted(few)
    for chosen in (many, few):
        assert are_test_clients(DESCRIPTION, chosen).sum() == len(chosen) // 2
    kept = are_test_clients(DESCRIPTION, many)[np.isin(many, few)]
    assert list(kept) == list(are_test_clients(DESCRIPTION, few))


def test_they_are_not_the_first_ones_but_all_where_there_are_no_more() -> None:
    assert list(heldout_sample(DESCRIPTION, 10)) != list(range(100, 110))
    assert list(heldout_sample(DESCRIPTION, 1000)) == list(range(100, 160))


@pytest.mark.parametrize("training", [100, 7])
def test_the_sample_does_not_depend_on_how_many_train(training: int) -> None:
    other = replace(DESCRIPTION, training_clients=training)
    assert list(heldout_sample(other, 10) - training) == list(heldout_sample(DESCRIPTION, 10) - 100)
