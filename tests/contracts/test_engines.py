"""Contract of all engines: the same bits, calls of observers, and runs that can be resumed."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from fedsi.data.shards import write_shards
from server.configuration import RunConfiguration
from server.round_record import RoundRecord
from server.runs.summary import Summary
from simulations import simulate
from simulations.benchmarks.loopback import Deployment
from simulations.cli.main import main
from simulations.engines.table import ENGINES, USUAL, EngineOptions
from tests.test_docs import ROOT, fenced

ADDED = "traced"
"""The engine of the documentation."""


EXPERIMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "noise": {
        "server.sampling": "shuffled",
        "server.averaging": "uniform",
        "privacy.mechanism": "blt",
        "privacy.noise_multiplier": 0.5,
    },
    "scaffold": {"algorithm.name": "scaffold", "server.averaging": "uniform"},
    "masked": {"privacy.secure_aggregation": True},
}
"""Experiments whose model must not depend on the engine, as changes of ``small``."""

REFUSED = {("deployed", "masked"): "privacy.secure_aggregation is a simulation"}
"""Experiments that an engine refuses, with a part of the sentence."""

OPTIONS: dict[str, Callable[[pytest.FixtureRequest], EngineOptions]] = {
    "deployed": lambda r: r.getfixturevalue("deployment").options(),
    "ray": lambda r: EngineOptions(nodes=2, ray_address=r.getfixturevalue("ray_address")),
}
"""Options of the engines that need some. Their fixtures skip the test if something is missing; what
runs on them is slow."""


@pytest.fixture(scope="module")
def small() -> Experiment:
    return Experiment(
        data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        server={"rounds": 3, "cohort_size": 4, "evaluation_clients": 4, "evaluate_every": 2},
    )


@pytest.fixture(scope="module")
def deployment(
    small: Experiment, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Yield two SuperNodes, each with a shard of the population."""
    folder = tmp_path_factory.mktemp("deployment")
    with Deployment(folder, write_shards(prepare(small.data, cache), folder, 2)) as running:
        yield running


@pytest.fixture(scope="module")
def references(small: Experiment, cache: Path) -> Callable[[str], Summary]:
    """Return the summary of one of ``EXPERIMENTS`` on the usual engine."""

    @lru_cache
    def reference(name: str) -> Summary:
        return simulate(small.updated(EXPERIMENTS[name]), cache=cache).summary

    return reference


def ways(name: str, workers: Sequence[int]) -> list[Any]:
    """Return the parameters of a test that runs on an engine; one that needs options has 1 worker
    on each of its nodes."""
    if name in OPTIONS:
        return [pytest.param(name, 1, marks=pytest.mark.slow)]
    # The added engine is the one in process, traced.
    return [
        pytest.param(name, number, marks=pytest.mark.slow if name == ADDED and number > 1 else ())
        for number in workers
    ]


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in OPTIONS else ())
        for name in [*ENGINES, ADDED]
    ]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == ADDED:
        (code,) = fenced("docs/add-an-engine.md", "python")
        (tmp_path / f"planted_{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(ENGINES.entries, name, f"planted_{name}")
    return name


@pytest.fixture
def options(request: pytest.FixtureRequest, engine: str) -> EngineOptions:
    return OPTIONS[engine](request) if engine in OPTIONS else EngineOptions()


@pytest.mark.parametrize(
    "name",
    ["plain", "masked", *(pytest.param(n, marks=pytest.mark.slow) for n in ("noise", "scaffold"))],
)
@pytest.mark.parametrize(
    ("engine", "workers"),
    [way for name in [*ENGINES, ADDED] for way in ways(name, (1, 2))],
    indirect=["engine"],
)
def test_any_engine_gives_the_same_bits(
    engine: str,
    options: EngineOptions,
    workers: int,
    name: str,
    small: Experiment,
    cache: Path,
    references: Callable[[str], Summary],
) -> None:
    run = partial(
        simulate, small.updated(EXPERIMENTS[name]),
        engine=engine, engine_options=options, workers=workers, cache=cache,
    )  # fmt: skip
    if sentence := REFUSED.get((engine, name)):
        with pytest.raises(UserError, match=sentence):
            run()
        return
    summary, expected = run().summary, references(name)
    assert summary.model_sha256 == expected.model_sha256
    assert summary.heldout_loss == expected.heldout_loss
    assert summary.provenance
    assert summary.provenance["engine"] == engine


def test_observers_are_told_of_each_round_in_their_order(
    engine: str, options: EngineOptions, small: Experiment, cache: Path
) -> None:
    seen: list[tuple[str, int]] = []

    def first(_: Experiment, record: RoundRecord) -> None:
        seen.append(("first", record.round))

    def second(_: Experiment, record: RoundRecord) -> None:
        seen.append(("second", record.round))

    config = RunConfiguration(small, engine=engine, workers=1)
    ENGINES[engine].run(config, prepare(small.data, cache), [first, second], options)
    assert seen == [(who, number) for number in (1, 2, 3) for who in ("first", "second")]


def test_a_stopped_run_goes_on_with_the_same_bits(
    engine: str,
    options: EngineOptions,
    small: Experiment,
    cache: Path,
    tmp_path: Path,
    references: Callable[[str], Summary],
) -> None:
    def stop(_: Experiment, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    run = partial(
        simulate, small, engine=engine, engine_options=options, out=tmp_path / "run", cache=cache
    )
    with pytest.raises(KeyboardInterrupt):
        run(on_round=stop)
    resumed = run(resume=True)
    assert resumed.summary.model_sha256 == references("plain").model_sha256
    written = json.loads((tmp_path / "run/summary.json").read_text())
    assert written == resumed.summary.to_json()


def test_an_unknown_engine_is_refused_with_the_nearest(
    small: Experiment, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = f"engine = 'inprocess' is not allowed: did you mean {USUAL}? expected one of"
    with pytest.raises(UserError, match=re.escape(sentence)):
        simulate(small, engine="inprocess", cache=cache)
    assert main(["run", "--preset", "smoke", "--engine", "inprocess"]) == 2
    assert sentence in capsys.readouterr().err


def test_an_option_without_effect_is_refused(small: Experiment, cache: Path) -> None:
    options = EngineOptions(nodes=2)
    with pytest.raises(UserError, match="nodes has no effect with engine=in_process; "):
        simulate(small, engine_options=options, cache=cache)


def test_the_page_names_the_line_of_the_table() -> None:
    page = (ROOT / "docs/add-an-engine.md").read_text()
    assert f'"{ADDED}": "simulations.engines.{ADDED}",' in page
