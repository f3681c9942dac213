"""What a study still has to train, before and after some of it has finished."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from fedsi.data.corpus import silent
from fedsi.experiment import Experiment
from server.round_record import RoundRecord
from simulations.studies import cost
from simulations.studies.cost import RoundClock, Speed, TimeEstimate, study_costs
from simulations.studies.study import Study

STUDY = Study(
    axes=[
        {"key": "model.architecture", "values": ["cifg", "si_cifg"]},
        {"key": "client.learning_rate", "values": [0.1, 0.3, 1.0]},
    ],
    compare=["model.architecture"], tune=["client.learning_rate"], design="halving",
    first_rounds=10, factor=3, finalists=2, final_seeds=5,
    experiment={"server": {"rounds": 30, "cohort_size": 20}},
)  # fmt: skip


def _one_a_round(experiment: Experiment) -> float:
    return experiment.server.rounds


def test_stages_of_halving_are_counted_for_each_arm() -> None:
    first, last = study_costs(STUDY, None, _one_a_round)
    assert (first.rounds, first.trials, first.finished, first.clients) == (10, 6, 0, 6 * 10 * 20)
    assert (last.rounds, last.trials, last.seconds) == (30, 2 * 2 * 5, 20 * 30)


def test_finished_trials_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finished(run: object, _experiment: Experiment, _lengths: Sequence[int] = ()) -> bool:
        return "seed0" in str(run.path) and "cifg" in str(run.path)  # type: ignore[attr-defined]

    monkeypatch.setattr(cost, "is_finished", finished)
    first, last = study_costs(STUDY, tmp_path, _one_a_round)
    assert (first.finished, first.seconds) == (6, 0)
    assert (last.finished, last.seconds) == (0, 20 * 30)


def test_the_trials_that_are_left_are_those_that_have_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(
        axes=[{"key": "model.layers", "values": [1, 8]}],
        experiment={"model": {"architecture": "transformer"}},
    )
    monkeypatch.setattr(cost, "is_finished", lambda _run, experiment: experiment.model.layers == 8)
    (left,) = study_costs(study, tmp_path, lambda experiment: 10.0 * experiment.model.layers)
    assert (left.finished, left.seconds) == (1, 10)


def test_a_run_evaluates_before_between_and_after() -> None:
    server = {"rounds": 100, "evaluate_every": 50, "evaluation_clients": 40}
    speed = Speed(per_round=2.0, per_evaluated_client=0.5)
    assert speed.seconds(Experiment(server=server), 30) == 100 * 2 + 4 * 30 * 0.5


def test_time_in_which_others_had_the_core_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # After a slow first round each takes .8 s, for a quarter of which this process has the core;
    # one round is five times as slow.
    ends = [9.0, 9.8, 10.6, 14.6]
    monkeypatch.setattr(
        cost, "time", SimpleNamespace(perf_counter=lambda: 0.0, process_time=lambda: 0.0)
    )
    clock, experiment = RoundClock(), Experiment()
    for number, end in enumerate(ends, start=1):
        took = {1: 9.0, len(ends): 4.0}.get(number, 0.8)
        record = RoundRecord(
            number, 5.0, 20, 0, 0, 0, 100, train_seconds=took * 0.9, evaluation_seconds=took * 0.1
        )
        now = SimpleNamespace(perf_counter=lambda t=end: t, process_time=lambda t=end: t / 4)
        monkeypatch.setattr(cost, "time", now)
        assert clock.stop(experiment, record) == (number == len(ends))
    idle = clock.speed(10, on_cpu=True)
    assert (idle.per_round, idle.per_evaluated_client) == pytest.approx((0.18, 0.002))
    assert clock.speed(10, on_cpu=False).per_round == pytest.approx(0.72)


def test_each_kind_of_training_is_measured_once(cache: Path) -> None:
    told: list[int] = []
    estimate = TimeEstimate(
        cache,
        lambda what, done, _total: told.append(done) if what == "measuring the speed" else None,
    )
    base = Experiment(data={"corpus": "synthetic"}, model={"hidden_size": 8, "embedding_size": 8})
    assert estimate(base) > 0
    assert estimate(base.updated({"server.learning_rate": 0.5, "seed": 3})) == estimate(base)
    assert told == [0]
    often = estimate(base.updated({"server.evaluate_every": 1}))
    assert often > 1.05 * estimate(base)  # evaluations take time too
    longer = estimate(base.updated({"server.rounds": 10 * base.server.rounds}))
    assert 5 < longer / estimate(base) <= 10
    assert told == [0]


def test_clients_that_a_small_population_lacks_are_not_timed(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(
        experiment: Experiment, *, on_round: Callable[[Experiment, RoundRecord], bool], **_: object
    ) -> None:
        for number in (1, 2, 3):
            on_round(experiment, RoundRecord(number, 5.0, 20, 0, 0, 0, 100, 0.0, 1.0))

    ticks = SimpleNamespace(perf_counter=count().__next__, process_time=count().__next__)
    monkeypatch.setattr(cost, "time", ticks)
    monkeypatch.setattr(cost, "simulate", simulate)
    data = {"corpus": "synthetic", "population": 40, "heldout_fraction": 0.1}
    server = {"rounds": 10, "evaluate_every": 5, "cohort_size": 10}
    # A second for each evaluation of all four clients, of which a run has four.
    assert TimeEstimate(cache, silent)(Experiment(data=data, server=server)) == 4


def test_a_run_of_one_round_has_a_time(cache: Path) -> None:
    experiment = Experiment(
        data={"corpus": "synthetic"}, model={"hidden_size": 8, "embedding_size": 8},
        server={"rounds": 1},
    )  # fmt: skip
    assert TimeEstimate(cache, silent)(experiment) > 0
