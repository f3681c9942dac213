"""Runs with PyTorch's matrix products: recorded, resumed, and the same on every node."""

from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.kernels.cpu import matrix_products, tiles
from server.runs.folder import RunFolder
from simulations import simulate
from tests.end_to_end.test_interrupted import stop_at_once

NEEDED = pytest.mark.skipif(not tiles.HAS_WIDE_VECTORS, reason="this processor has no AVX-512")


def sha256(experiment: Experiment, cache: Path, workers: int = 1) -> str:
    return str(simulate(experiment, cache=cache, workers=workers).summary.model_sha256)


@NEEDED
def test_every_node_follows_the_choice(
    smoke: Experiment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, torch = (smoke.updated({"client.products": one}) for one in ("own", "torch"))
    expected = sha256(torch, cache)
    assert sha256(torch, cache, workers=2) == expected
    tiled = sha256(own, cache)
    assert tiled != expected
    # A node that ignored it would be noticed.
    monkeypatch.setattr(matrix_products, "products_of", lambda _settings: "own")
    assert sha256(torch, cache) != expected


def test_the_choice_is_stored_and_resumed(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    torch = smoke.updated({"client.products": "torch"})
    with pytest.raises(KeyboardInterrupt):
        simulate(torch, out=tmp_path, cache=cache, on_round=stop_at_once)
    found = simulate(smoke, out=tmp_path, cache=cache, resume=True)
    assert found.experiment == RunFolder(tmp_path).experiment() == torch
    assert found.summary.provenance
    assert found.summary.provenance["products"] == "PyTorch's"
    assert found.summary.model_sha256 == sha256(torch, cache)
    with pytest.raises(UserError, match="holds a run of another experiment"):
        simulate(smoke.updated({"client.products": "own"}), out=tmp_path, cache=cache, resume=True)


@NEEDED
def test_a_run_that_this_processor_cannot_follow_is_one_sentence(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = smoke.updated({"client.products": "own"})
    with pytest.raises(KeyboardInterrupt):
        simulate(own, out=tmp_path, cache=cache, on_round=stop_at_once)
    monkeypatch.setattr(tiles, "HAS_WIDE_VECTORS", False)
    for other in (False, True):
        with pytest.raises(UserError, match=r"^client.products=own needs a processor with AVX-512"):
            simulate(smoke, out=tmp_path, cache=cache, resume=True, other_machine=other)
