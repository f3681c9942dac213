"""Distillation between rounds: planted faults, privacy, what is refused, and the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsi import Experiment, UserError
from fedsi.learning import soft_targets
from fedsi.learning.algorithms.algorithm import Updates, Vector
from fedsi.learning.soft_targets import Logits
from fedsi.models.model import Model
from simulations import simulate
from simulations.cli.main import main
from simulations.finished_run import open_run
from tests.contracts.test_algorithms import CLOSE, flat, slow_run
from tests.server.test_central import SMALL
from tests.slow_distillation import write_public_corpus
from tests.slow_federated import relative_distance

FEDERATED = SMALL.updated(
    {
        "algorithm.name": "fed_avg",
        "server.rounds": 2,
        "server.averaging": "uniform",
        "model.architecture": "cifg",
    }
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    simulate(FEDERATED.updated({"model.architecture": "gru"}), out=folder, cache=cache)
    return folder


@pytest.fixture(scope="module")
def fed_df(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    changes = {
        "algorithm.name": "fed_df",
        "algorithm.public_corpus": str(write_public_corpus(tmp_path_factory.mktemp("public"))),
        "algorithm.distillation_steps": 3,
        "algorithm.distillation_optimizer": "sgd",
        "algorithm.distillation_learning_rate": 0.5,
    }
    return FEDERATED.updated(changes)


def towards(fed_df: Experiment, teacher: Path, **changes: Any) -> Experiment:
    """Return an experiment whose server imitates a teacher instead of the cohort."""
    named = {"algorithm.name": "server_distillation", "algorithm.teacher": str(teacher)}
    return fed_df.updated({**named, **changes})


def _first_only(model: Model, start: Vector, updates: Updates) -> Logits:
    return soft_targets.mean_logits(model, start, updates[:1])


def _the_mean_model(model: Model, start: Vector, updates: Updates) -> Logits:
    return soft_targets.mean_logits(model, start, updates.mean(axis=0, keepdims=True))


def _without_start(model: Model, start: Vector, updates: Updates) -> Logits:
    return soft_targets.mean_logits(model, 0 * start, updates)


@pytest.mark.parametrize("fault", [None, _first_only, _the_mean_model, _without_start])
def test_the_targets_are_those_of_a_loop_over_the_clients_models(
    fault: Callable[..., Logits] | None,
    fed_df: Experiment,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted faults differ from the loop by far more than the tolerance."""
    experiment = fed_df.updated({"client.learning_rate": 3.0})  # so that clients differ
    start, expected = slow_run(experiment, cache)
    if fault:
        right = soft_targets.mean_logits
        monkeypatch.setattr(
            soft_targets, "mean_logits", lambda *given: _called(fault, right, *given)
        )
    found = relative_distance(flat(simulate(experiment, cache=cache).parameters), expected, start)
    assert found > 50 * CLOSE if fault else found < CLOSE


def _called(fault: Callable[..., Logits], right: Callable[..., Logits], *given: Any) -> Logits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_targets, "mean_logits", right)
        return fault(*given)


def test_rounds_without_a_distillation_are_those_of_fed_avg(
    fed_df: Experiment, teacher: Path, cache: Path
) -> None:
    plain = simulate(FEDERATED, cache=cache).summary.model_sha256
    never = towards(fed_df, teacher, **{"algorithm.distillation_every": 3})
    assert simulate(never, cache=cache).summary.model_sha256 == plain
    once = never.updated({"algorithm.distillation_every": 2})
    assert simulate(once, cache=cache).summary.model_sha256 != plain


def test_a_mechanism_has_the_same_epsilon_and_the_teacher_is_warned_of(
    fed_df: Experiment, teacher: Path, cache: Path
) -> None:
    private = {
        "privacy.mechanism": "gaussian",
        "privacy.noise_multiplier": 1.0,
        "privacy.clip_norm": 0.1,
        "server.sampling": "poisson",
    }
    plain = simulate(FEDERATED.updated(private), cache=cache).summary
    experiment = towards(fed_df, teacher, **private)
    with pytest.warns(UserWarning, match=r"imitates the model of .* epsilon does not cover"):
        found = simulate(experiment, cache=cache).summary
    assert found.privacy == plain.privacy
    assert found.model_sha256 != plain.model_sha256
    with pytest.raises(UserError, match=r"needs every client's update at the server, which privac"):
        fed_df.updated(private)
    with pytest.raises(UserError, match=r"which privacy\.secure_aggregation is there to hide"):
        fed_df.updated({"privacy.secure_aggregation": True})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"public_corpus": None}, r"fed_df has no public corpus for the server to read; name pyd"),
        ({"public_corpus": "synthetic"}, r"generated words only for the server to read; name pydo"),
        ({"public_corpus": "nowhere.jsonl"}, r"^algorithm\.public_corpus=nowhere\.jsonl cannot be"),
        ({"public_corpus": "empty.jsonl"}, r"cannot be read: the corpus empty\.jsonl .*no usable"),
        ({"public_corpus": "other.jsonl"}, r"has none of the 104 words of the run; name text in"),
        ({"memory_limit": 1e-6}, r"4 clients of 0\.0105 MB are .* GB of memory, more than"),
        ({"name": "server_distillation", "memory_limit": 4.0}, r"server_distillation has no teach"),
    ],
)
def test_what_is_refused(
    changes: dict[str, Any],
    sentence: str,
    fed_df: Experiment,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, texts in {"empty": [" "] * 4, "other": [f"nothing {k}" for k in "abcdefgh"]}.items():
        lines = (json.dumps({"user": "someone", "text": text}) for text in texts)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=sentence):
        simulate(
            fed_df.updated({f"algorithm.{key}": value for key, value in changes.items()}),
            cache=cache,
        )


def test_the_task_and_the_teachers_words_are_those_of_the_run(
    fed_df: Experiment, teacher: Path, cache: Path
) -> None:
    with pytest.raises(UserError, match=r"imitates probabilities of next words, .*task\.name=copy"):
        fed_df.updated({"task.name": "copy"})
    with pytest.raises(UserError, match=r"has another vocabulary than the corpus synthetic"):
        simulate(towards(fed_df, teacher, **{"data.vocabulary_size": 90}), cache=cache)


def test_a_resumed_run_needs_the_same_public_corpus(
    fed_df: Experiment, cache: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mine.jsonl"
    shutil.copy(str(fed_df.algorithm.public_corpus), place)
    experiment = fed_df.updated({"algorithm.public_corpus": str(place)})
    out = tmp_path / "run"

    def stop(_: Experiment, record: Any) -> bool:
        return bool(record.round == 1)

    shown: list[str] = []
    simulate(
        experiment,
        out=out,
        cache=cache,
        on_round=stop,
        progress=lambda what, *_: shown.append(what),
    )
    assert "reading mine.jsonl" in shown
    place.write_text("".join(place.read_text().splitlines(keepends=True)[:-1]))
    longer = experiment.updated({"server.rounds": 3})
    with pytest.raises(UserError, match=r"another corpus"):
        simulate(longer, out=out, cache=cache, resume=True)


def test_from_the_command_line(
    teacher: Path,
    fed_df: Experiment,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.toml").write_text(fed_df.to_toml())
    common = ["run", str(tmp_path / "mine.toml"), "--cache", str(cache)]
    out = tmp_path / "run"
    words = ["--set", "algorithm.name=server_distillation", "--set", f"algorithm.teacher={teacher}"]
    assert main([*common, *words, "--out", str(out)]) == 0
    expected = simulate(towards(fed_df, teacher), cache=cache).summary.model_sha256
    assert open_run(out).summary.model_sha256 == expected
    assert len(str(Experiment.from_file(out / "experiment.toml").algorithm.teacher_sha256)) == 64
    capsys.readouterr()
    nowhere = ["--set", "algorithm.public_corpus=nowhere"]
    assert main([*common, *nowhere, "--out", str(tmp_path / "no")]) == 2
    expected = "error: algorithm.public_corpus=nowhere cannot be read: "
    assert expected in capsys.readouterr().err
