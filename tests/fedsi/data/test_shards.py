import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsi import Experiment
from fedsi.data.population import WHOLE, Population, Shard, shard_of
from fedsi.data.prepare import open_population, prepare
from fedsi.data.shards import write_shards
from simulations.cli.main import main

Corpus = Callable[[Path, int], Experiment]


def texts(folder: Path, clients: int) -> Experiment:
    rng = np.random.default_rng(clients)
    rows = [
        {"user": f"user {client % clients}", "text": " ".join(rng.choice(list("abcdefgh"), 5))}
        for client in range(4 * clients)
    ]
    path = folder / f"texts-{clients}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Experiment(data={"corpus": str(path), "vocabulary_size": 6})


def synthetic(_folder: Path, clients: int) -> Experiment:
    return Experiment(data={"corpus": "synthetic", "population": clients, "vocabulary_size": 50})


def opened(folder: Path) -> tuple[Population, Shard]:
    return open_population(folder), shard_of(folder)


@pytest.mark.parametrize("corpus", [texts, synthetic])
@settings(max_examples=20)
@given(clients=st.integers(5, 30), count=st.integers(1, 5))
def test_the_union_of_the_shards_is_the_population(
    corpus: Corpus, clients: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    source = prepare(corpus(folder, clients).data, folder)
    whole = open_population(source)
    shards = [opened(path) for path in write_shards(source, folder / "out", count)]
    indices = np.arange(clients)
    hosted = np.sum([shard.hosts(indices) for _, shard in shards], axis=0)
    assert hosted.tolist() == [1] * clients
    for population, shard in shards:
        assert population.description == whole.description
        assert list(population.vocabulary().file_text()) == list(whole.vocabulary().file_text())
        assert np.array_equal(population.unigram_log_probabilities, whole.unigram_log_probabilities)
        for client in indices[shard.hosts(indices)].tolist():
            assert np.array_equal(population.examples(client), whole.examples(client))
            assert population.count(client) == whole.count(client)
            assert population.work(client, 3) == whole.work(client, 3)
            assert population.names()[client] == whole.names()[client]


def test_a_shard_has_neither_texts_nor_names_of_other_clients(tmp_path: Path) -> None:
    source = prepare(texts(tmp_path, 9).data, tmp_path)
    whole = open_population(source)
    first, second = (opened(path)[0] for path in write_shards(source, tmp_path / "out", 2))
    assert first.count(0)
    assert not second.count(0)
    assert second.find([whole.names()[0], whole.names()[1], ""]).tolist() == [-1, 1, -1]
    name = whole.names()[0]
    assert all(
        name.encode() not in path.read_bytes() for path in (tmp_path / "out/shard-1").iterdir()
    )
    sizes = [(tmp_path / f"out/shard-{index}/tokens.npy").stat().st_size for index in (0, 1)]
    assert max(sizes) < (source / "tokens.npy").stat().st_size


def test_a_whole_population_is_one_shard(tmp_path: Path) -> None:
    assert shard_of(prepare(synthetic(tmp_path, 5).data, tmp_path)) == WHOLE


def test_shards_that_cannot_be_written_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = ["synthetic", "--set", "data.population=5", "--cache", str(tmp_path)]
    command = ["data", "shard", *corpus, "--out", str(tmp_path / "out")]
    assert main([*command, "--into", "6"]) == 2
    assert "6 shards are not possible: expected 1 to 5, the number of clients" in (
        capsys.readouterr().err
    )
    assert main([*command, "--into", "2"]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out/shard-0"),
        str(tmp_path / "out/shard-1"),
    ]
    assert main([*command, "--into", "2"]) == 2
    assert "exists already; remove it, or name another folder" in capsys.readouterr().err


def test_the_number_of_shards_is_part_of_a_shard() -> None:
    assert replace(WHOLE, count=2) != WHOLE
    assert str(Shard(1, 3)) == "shard 1 of 3"
