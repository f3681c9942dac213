"""The decision for matrix products: made once, kept, and the same when a run is resumed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.kernels.cpu import product_choice, tiles
from fedsi.learning import product_times as measuring
from fedsi.learning.product_times import ProductTime, measure_products
from server import products
from server.products import decided, faster, product_times

FASTEST = Experiment(client={"products": "fastest"})
SLOW_TILES = [ProductTime(("update", 9, 8, 7), 3e-6, 2e-6), ProductTime(("inner", 9, 7, 8), 1, 1)]


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[Experiment]:
    """Replace the measurement; returns the experiments that it was made for."""
    made: list[Experiment] = []

    def measure(experiment: Experiment) -> list[ProductTime]:
        made.append(experiment)
        return SLOW_TILES

    monkeypatch.setattr(measuring, "measure_products", measure)
    monkeypatch.setattr(product_choice, "usual_products", lambda: "own")
    return made


@pytest.mark.parametrize(("wide", "chosen"), [(True, "own"), (False, "torch")])
@pytest.mark.parametrize("asked", ["auto", "fastest"])
def test_without_avx_512_nothing_is_measured(
    asked: str, wide: bool, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usual() -> str:
        return "own" if tiles.HAS_WIDE_VECTORS else "torch"

    def measure(experiment: Experiment) -> list[ProductTime]:
        measured.append(experiment)
        return [ProductTime(("update", 1, 1, 1), 1.0, 2.0)]

    measured: list[Experiment] = []
    monkeypatch.setattr(product_choice, "usual_products", usual)  # the suite may force another
    monkeypatch.setattr(measuring, "measure_products", measure)
    monkeypatch.setattr(tiles, "HAS_WIDE_VECTORS", wide)
    experiment = decided(Experiment(client={"products": asked}), cache=tmp_path)
    assert experiment.client.products == chosen
    assert len(measured) == (asked == "fastest" and wide)
    assert decided(experiment) is experiment


def test_the_measurement_is_made_once_and_again_if_its_file_is_damaged(
    measurements: list[Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert product_times(FASTEST, tmp_path) == SLOW_TILES
        assert decided(FASTEST, cache=tmp_path).client.products == "torch"
    assert len(measurements) == 1
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    damages: list[Callable[[], object]] = [
        lambda: file.write_bytes(content.replace(b"3e-06", b"1e-06")),
        lambda: file.write_bytes(content[:-9]),
        lambda: file.write_bytes(b'{"times": 3}'),
        lambda: file.write_bytes(b"\xff" * 9),
        file.unlink,
    ]
    for damage in damages:
        damage()
        assert product_times(FASTEST, tmp_path) == SLOW_TILES
        assert file.read_bytes() == content
    assert len(measurements) == 1 + len(damages)
    for other in ({"client.batch_size": 3}, {"model.hidden_size": 9}):
        product_times(FASTEST.updated(other), tmp_path)
    monkeypatch.setattr(products, "machine_facts", lambda: {"processor": "another one"})
    product_times(FASTEST, tmp_path)
    assert len(measurements) == 4 + len(damages)


def test_without_a_cache_it_is_measured_each_time(
    measurements: list[Experiment], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for _ in range(2):
        assert decided(FASTEST, cache=tmp_path / "file").client.products == "torch"
    assert len(measurements) == 2


def test_a_run_that_is_resumed_keeps_its_products(measurements: list[Experiment]) -> None:
    torch = Experiment(client={"products": "torch"})
    assert decided(FASTEST, torch) == decided(Experiment(), torch) == torch
    own = Experiment(client={"products": "own"})
    assert decided(own, torch) == own, "what an experiment names itself is kept"
    assert measurements == []


def test_models_without_gradients_by_hand_have_nothing_to_decide(
    measurements: list[Experiment],
) -> None:
    for keys in (
        {"model.architecture": "lstm"},
        {"client.step": "vectorised"},
        {"model.architecture": "transformer", "model.norms": "around"},
    ):
        experiment = Experiment().updated(keys)
        assert decided(experiment) is experiment
    own = Experiment(client={"products": "own"})
    assert own.updated({"model.architecture": "lstm"}).client.products == "auto"
    for section in ({"model": {"architecture": "lstm"}}, {"client": {"step": "vectorised"}}):
        values = {"client": {"products": "own"} | section.get("client", {})}
        with pytest.raises(UserError, match=r"client\.products=own"):
            Experiment(**{**section, **values})
    halves = Experiment(client={"precision": "bfloat16", "products": "fastest"})
    assert decided(halves).client.products == "own"
    with pytest.raises(UserError, match="bfloat16 has products of fedsi's own only"):
        Experiment(client={"precision": "bfloat16", "products": "torch"})
    assert measurements == []


@pytest.mark.parametrize("architecture", ["si_cifg", "transformer"])
def test_the_products_of_a_step_are_measured(architecture: str, smoke: Experiment) -> None:
    experiment = smoke.updated({"model.architecture": architecture, "data.vocabulary_size": 500})
    times = measure_products(experiment)
    assert len(times) > 6
    assert all(one.own > 0 and one.torch > 0 for one in times)
    positions = experiment.client.batch_size * (experiment.data.sequence_length // 2)
    assert ("update", positions, experiment.model.embedding_size, 500) in [t.shape for t in times]
    assert faster(times) in {"own", "torch"}
