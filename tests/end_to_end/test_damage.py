"""A damaged population ends the run, whichever process detects it."""

import json
from pathlib import Path

import numpy as np
import pytest

from clients import pool
from fedsi.checksums import CHUNK
from simulations.cli.main import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose tokens fill several chunks."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    with path.open("w") as file:
        for number in range(4000):
            letters = rng.integers(97, 107, 20)
            row = {"user": f"c{number % 40}", "text": " ".join(map(chr, letters))}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_node_that_finds_damage_ends_the_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    run = ["run", "--preset", "smoke", "--set", f"data.corpus={corpus}", "--workers", workers]
    run += ["--set", "server.rounds=1", "--cache", str(tmp_path / "cache"), "--overwrite"]
    run += ["--out", str(tmp_path / "run")]
    assert main(run) == 0
    (tokens,) = tmp_path.rglob("tokens.npy")
    content = bytearray(tokens.read_bytes())
    assert len(content) > CHUNK
    content[CHUNK + 10] ^= 1  # not in the chunk that is checked when the population is opened
    tokens.write_bytes(content)
    pool.population_of.cache_clear()  # a chunk is checked once in a process
    capsys.readouterr()
    assert main(run) == 2
    *_, sentence = capsys.readouterr().err.splitlines()
    assert sentence == (
        f"error: {tokens} is damaged: bytes {CHUNK} to {2 * CHUNK} are not what was written; "
        f"remove the folder {tokens.parent} and run again"
    )
