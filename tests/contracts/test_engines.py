"""Contract of all engines: the same bits, calls of observers, and runs that can be resumed."""

import json
import re
from pathlib import Path

import pytest

from fedsi import Experiment, UserError
from fedsi.data.prepare import prepare
from server.configuration import RunConfiguration
from server.rounds import RoundRecord
from server.runs.summary import Summary
from simulations import simulate
from simulations.cli.main import main
from simulations.engines.table import ENGINES, USUAL, EngineOptions
from tests.test_docs import ROOT, fenced

ADDED = "traced"
"""The engine of the documentation."""


@pytest.fixture(scope="module")
def small() -> Experiment:
    return Experiment(
        data={"corpus": "synthetic", "population": 60, "vocabulary_size": 100},
        model={"embedding_size": 8, "hidden_size": 12},
        server={"rounds": 3, "cohort_size": 4, "evaluation_clients": 4, "evaluate_every": 2},
    )


@pytest.fixture(scope="module")
def reference(small: Experiment, cache: Path) -> Summary:
    return simulate(small, cache=cache).summary


@pytest.fixture(params=[*ENGINES, ADDED])
def engine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == ADDED:
        (code,) = fenced("docs/add-an-engine.md", "python")
        (tmp_path / f"planted_{name}.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(ENGINES.entries, name, f"planted_{name}")
    return name


@pytest.mark.parametrize("workers", [1, 2])
def test_any_engine_gives_the_same_bits(
    engine: str, workers: int, small: Experiment, cache: Path, reference: Summary
) -> None:
    summary = simulate(small, engine=engine, workers=workers, cache=cache).summary
    assert summary.model_sha256 == reference.model_sha256
    assert summary.heldout_loss == reference.heldout_loss
    assert summary.provenance
    assert summary.provenance["engine"] == engine


def test_observers_are_told_of_each_round_in_their_order(
    engine: str, small: Experiment, cache: Path
) -> None:
    seen: list[tuple[str, int]] = []

    def first(_: Experiment, record: RoundRecord) -> None:
        seen.append(("first", record.round))

    def second(_: Experiment, record: RoundRecord) -> None:
        seen.append(("second", record.round))

    config = RunConfiguration(small, engine=engine, workers=1)
    options = EngineOptions()
    ENGINES[engine].run(config, prepare(small.data, cache), [first, second], options)
    assert seen == [(who, number) for number in (1, 2, 3) for who in ("first", "second")]


def test_a_stopped_run_goes_on_with_the_same_bits(
    engine: str, small: Experiment, cache: Path, tmp_path: Path, reference: Summary
) -> None:
    def stop(_: Experiment, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(small, engine=engine, out=tmp_path / "run", cache=cache, on_round=stop)
    resumed = simulate(small, engine=engine, out=tmp_path / "run", cache=cache, resume=True)
    assert resumed.summary.model_sha256 == reference.model_sha256
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
