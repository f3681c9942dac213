"""Round 0: the model before any training, evaluated."""

import math
from pathlib import Path

import pytest
import torch

from fedsi import Experiment
from fedsi.data.corpus import silent
from fedsi.models.build import build_model, initial_parameters
from server.progress import RunProgress
from server.round_record import RoundRecord
from server.rounds import evaluated_clients
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.finished_run import open_run
from simulations.per_client import per_client
from tests.simulations.tracking.sinks import NotingSink


def stop_at_2(_: Experiment, record: RoundRecord) -> None:
    if record.round == 2:
        raise KeyboardInterrupt


def test_round_0_is_the_initial_model_and_costs_nothing(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    sink, told = NotingSink(), list[int]()
    result = simulate(
        smoke,
        out=tmp_path,
        cache=cache,
        sinks=[sink],
        on_round=lambda _, record: told.append(record.round),
    )
    untrained, *trained = RunFolder(tmp_path).records()
    assert [record.round for record in (untrained, *trained)] == [0, 1, 2, 3, 4]
    assert told == [1, 2, 3, 4]  # an observer gets what was trained, a sink each row
    assert [what for event, what in sink.events if event == "round"] == [0, *told]
    # The twin: the initial parameters, client by client.
    population = result.population()
    model = build_model(smoke, result.summary.vocabulary_size)
    clients = evaluated_clients(smoke, population.description).tolist()
    first = initial_parameters(model, smoke.seed)
    table = per_client(smoke, first, population, clients, silent)
    loss = float((table["loss"] * table["tokens"]).sum() / table["tokens"].sum())
    assert untrained.heldout
    assert untrained.heldout["loss"] == pytest.approx(loss)
    assert untrained.heldout["loss"] > trained[-1].heldout["loss"]  # type: ignore[index]
    assert math.isnan(untrained.train_loss)
    spent = ("clients", "tokens", "train_seconds", "download_bytes", "upload_bytes", "steps")
    assert all(getattr(untrained, name) == 0 for name in spent)


def test_the_untrained_model_is_never_the_best(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    worse = smoke.updated({"server.optimizer": "sgd", "server.learning_rate": 30.0})
    summary = simulate(worse, out=tmp_path, cache=cache).summary
    losses = {r.round: r.heldout["loss"] for r in RunFolder(tmp_path).records() if r.heldout}
    assert losses[0] == min(losses.values())
    assert summary.best_round == min((2, summary.rounds), key=lambda number: losses[number])
    best = open_run(tmp_path, best=True).trained.parameters
    assert best.keys() == open_run(tmp_path).trained.parameters.keys()


@pytest.mark.parametrize("stopped", ["before", "after"])
def test_a_run_without_round_0_or_stopped_after_it_goes_on(
    smoke: Experiment,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: str,
) -> None:
    whole = simulate(smoke, cache=cache)
    with monkeypatch.context() as patch:
        if stopped == "before":  # as earlier versions did
            patch.setattr(RunProgress, "_evaluate_untrained", lambda *_: None)
            observer = stop_at_2
        else:
            observer = lambda *_: None  # noqa: E731
            patch.setattr("server.rounds.train_cohort", interrupt)
        with pytest.raises(KeyboardInterrupt):
            simulate(smoke, out=tmp_path, cache=cache, on_round=observer)
    before = [record.round for record in RunFolder(tmp_path).records()]
    assert before == ([1, 2] if stopped == "before" else [0])
    resumed = simulate(smoke, out=tmp_path, cache=cache, resume=True)
    numbers = [record.round for record in RunFolder(tmp_path).records()]
    assert numbers == ([1, 2, 3, 4] if stopped == "before" else [0, 1, 2, 3, 4])
    assert resumed.summary.model_sha256 == whole.summary.model_sha256
    assert all(torch.equal(resumed.parameters[name], p) for name, p in whole.parameters.items())


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
