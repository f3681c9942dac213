"""Partitions: nothing is lost, held-out clients do not change, and sizes are as documented."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsi.data.corpus import Row
from fedsi.data.partition import partition
from fedsi.experiment import DataSettings
from tests.fedsi.data.corpora import Content, built, content_of, files_of, letters

KINDS = ["iid", "dirichlet", "power_law"]


def dealt(kind: str, labels: list[int], clients: int, **settings: Any) -> NDArray[np.int32]:
    data = DataSettings(partition=kind, **settings)
    return partition(data, np.array(labels, dtype=np.int32), clients)


def sizes_of(dealt_to: NDArray[np.int32], clients: int) -> NDArray[np.int64]:
    return np.bincount(dealt_to, minlength=clients)


@given(
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 4), max_size=40),
    st.integers(1, 60),
    st.integers(0, 2**63 - 1),
    st.floats(1e-9, 1e6),
)
def test_every_row_has_one_client_that_the_seed_and_the_labels_decide(
    kind: str, labels: list[int], clients: int, seed: int, number: float
) -> None:
    settings = {
        "population_seed": seed, "partition_concentration": number, "partition_exponent": number
    }  # fmt: skip
    found = dealt(kind, labels, clients, **settings)
    assert found.dtype == np.int32
    assert len(found) == len(labels)
    assert sizes_of(found, clients).shape == (clients,)
    assert (found >= 0).all()
    assert np.array_equal(found, dealt(kind, labels, clients, **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_partition(kind: str) -> None:
    labels = [0, 1, 2] * 100
    one, other = (dealt(kind, labels, 10, population_seed=seed) for seed in (1, 2))
    assert not np.array_equal(one, other)


@given(st.integers(0, 300), st.integers(1, 60))
def test_iid_sizes_differ_by_one_at_most(rows: int, clients: int) -> None:
    sizes = sizes_of(dealt("iid", [0] * rows, clients), clients)
    assert set(sizes) <= {rows // clients, -(-rows // clients)}


def test_iid_rows_are_dealt_at_random() -> None:
    # Of neighbouring rows one in fifty goes to the same client.
    found = dealt("iid", [0] * 50_000, 50)
    same = (found[1:] == found[:-1]).mean()
    assert abs(same - 1 / 50) < 4 * np.sqrt(1 / 50 / 50_000)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7])
def test_sizes_of_a_power_law_fall_with_the_rank(exponent: float) -> None:
    clients, rows = 100, 100_000
    sizes = sizes_of(dealt("power_law", [0] * rows, clients, partition_exponent=exponent), clients)
    weights = np.array([rank**-exponent for rank in range(1, clients + 1)])
    np.testing.assert_allclose(sizes, rows * weights / weights.sum(), atol=1)
    slope = np.polyfit(np.log(np.arange(1, 31)), np.log(sizes[:30]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.02)


def shares_of_labels(concentration: float, labels: int, clients: int) -> NDArray[np.float64]:
    """Return each label's shares of its rows over clients: ``[labels, clients]``."""
    rows = np.repeat(np.arange(labels), 2000)
    rng = np.random.default_rng(0)
    order = rng.permutation(rows)
    found = dealt("dirichlet", order.tolist(), clients, partition_concentration=concentration)
    counts = np.zeros((labels, clients))
    np.add.at(counts, (order, found), 1)
    assert (counts.sum(1) == 2000).all()
    return counts / 2000


@pytest.mark.parametrize("concentration", [0.1, 0.5, 3.0])
def test_label_shares_have_the_variance_of_the_dirichlet_distribution(concentration: float) -> None:
    labels, clients = 400, 10
    shares = shares_of_labels(concentration, labels, clients)
    np.testing.assert_allclose(shares.mean(), 1 / clients)
    # Dirichlet, and the multinomial draw of 2000 rows on top.
    mean = 1 / clients
    variance = mean * (1 - mean) / (clients * concentration + 1)
    variance += (mean * (1 - mean) - variance) / 2000
    found = ((shares - mean) ** 2).mean(1)
    sigma = found.std() / np.sqrt(labels)
    assert abs(found.mean() - variance) < 4 * sigma
    # So precise that twice or half the concentration would not pass.
    assert sigma < 0.07 * variance


def test_labels_are_shared_out_independently() -> None:
    shares = shares_of_labels(0.3, 400, 10)
    neighbours = ((shares[:-1] - 0.1) * (shares[1:] - 0.1)).sum(1)
    assert abs(neighbours.mean()) < 4 * neighbours.std() / np.sqrt(399)
    # And no client is favoured over all labels.
    np.testing.assert_allclose(shares.mean(0), 0.1, atol=4 * np.sqrt(0.09 / 4 / 400))


def test_of_a_tiny_concentration_each_label_goes_to_one_client() -> None:
    shares = shares_of_labels(1e-12, 60, 10)
    assert ((shares == 0) | (shares == 1)).all()
    assert len(set(shares.argmax(1))) > 5


ROWS = [
    Row(f"c{k:02}", f"g{k % 8}", f"own{letters(k)} line{letters(n)}", label=f"{n % 3}")
    for k in range(40)
    for n in range(6)
]


def test_only_training_rows_are_dealt_anew(tmp_path: Path) -> None:
    natural = built(tmp_path / "natural", ROWS)
    before = content_of(tmp_path / "natural")
    sentences = Counter(s for lines in before.training.values() for s in lines)
    for kind in KINDS:
        population = built(tmp_path / kind, ROWS, partition=kind)
        content = content_of(tmp_path / kind)
        assert content.heldout == before.heldout
        assert list(content.heldout) == list(before.heldout)
        assert Counter(s for lines in content.training.values() for s in lines) == sentences
        assert content.training != before.training
        assert all(name.startswith("part-") for name in content.training)
        assert min(map(len, content.training.values())) > 0
        assert population.description.heldout_examples == natural.description.heldout_examples
        # The same text, so the same words and the same model of single words.
        files = [files_of(tmp_path / name) for name in ("natural", kind)]
        assert files[0]["vocabulary.txt"] == files[1]["vocabulary.txt"]
        assert files[0]["unigram.npy"] == files[1]["unigram.npy"]


@pytest.mark.parametrize("kind", KINDS)
def test_with_more_clients_than_rows_those_without_any_are_none(tmp_path: Path, kind: str) -> None:
    options = {"partition": kind, "partition_clients": 5000, "partition_concentration": 50.0}
    population = built(tmp_path / "p", ROWS, **options)
    content = content_of(tmp_path / "p")
    assert population.description.training_examples == sum(map(len, content.training.values()))
    assert min(map(len, content.training.values())) > 0
    numbers = [int(name.removeprefix("part-")) for name in content.training]
    assert numbers == sorted(set(numbers))
    assert max(numbers) < 5000
    if kind == "iid":
        assert set(map(len, content.training.values())) == {1}


def test_few_clients_get_all_rows(tmp_path: Path) -> None:
    built(tmp_path / "p", ROWS, partition="iid", partition_clients=2)
    content = content_of(tmp_path / "p")
    assert {name: len(lines) for name, lines in content.training.items()} == {
        "part-0": (40 - len(content.heldout)) * 3,
        "part-1": (40 - len(content.heldout)) * 3,
    }


def owners_of(content: Content) -> dict[str, set[str]]:
    """Return the training clients of each sentence's first word."""
    owners: dict[str, set[str]] = {}
    for client, lines in content.training.items():
        for line in lines:
            owners.setdefault(line.split()[0], set()).add(client)
    return owners


def test_a_label_stays_with_one_client_in_a_store(tmp_path: Path) -> None:
    rows = [row._replace(text=f"label{letters(int(row.label))} {row.text}") for row in ROWS]
    options = {"partition": "dirichlet", "partition_concentration": 1e-12, "partition_clients": 40}
    built(tmp_path / "p", rows, **options)
    owners = owners_of(content_of(tmp_path / "p"))
    assert sorted(owners) == ["labela", "labelb", "labelc"]
    assert all(len(clients) == 1 for clients in owners.values())
    assert len(set.union(*owners.values())) == 3


def test_the_group_stands_for_a_missing_label(tmp_path: Path) -> None:
    rows = [row._replace(label="", text=f"{row.group}x {row.text}") for row in ROWS]
    options = {"partition": "dirichlet", "partition_concentration": 1e-12, "words": "spaces"}
    built(tmp_path / "p", rows, heldout_by="clients", **options)
    owners = owners_of(content_of(tmp_path / "p"))
    assert len(owners) == 8
    assert all(len(clients) == 1 for clients in owners.values())
    assert len(set.union(*owners.values())) > 4
