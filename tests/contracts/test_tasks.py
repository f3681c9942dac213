"""Contract of all tasks in the table, and of the task on the page about tasks."""

import json
import math
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare_for
from fedsi.data.protocol import PAD, Tokens
from fedsi.models.table import ARCHITECTURES
from fedsi.tasks.table import TASKS, task_of
from fedsi.tasks.task import FIRST_COLUMNS, Batch, Task
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from tests.labelled import write_labelled

PAGE = Path(__file__).parents[2] / "docs" / "add-a-task.md"
VOCABULARY = 64
UNIGRAM = torch.full((VOCABULARY,), -math.log(VOCABULARY), dtype=torch.float64)


OWN, SORTING = "my_task:TASK", "my_sorting:TASK"


@pytest.fixture(params=[*TASKS, "parity", OWN, SORTING])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Return the name of a task; the page's task is used as a custom and as a built-in task."""
    if request.param not in TASKS:
        write_page(tmp_path, monkeypatch)
    if request.param == "parity":
        monkeypatch.setitem(TASKS.entries, "parity", "my_task")
    return str(request.param)


def write_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the page's tasks into a folder from which they are imported."""
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, code in zip(("my_task", "my_sorting"), codes, strict=True):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def trained(smoke: Experiment, name: str, tmp_path: Path) -> Experiment:
    """Return an experiment with the task, and with labels and a model for them if it needs some."""
    if name not in TASKS.entries or TASKS[name].bound is None:
        return smoke.updated({"task.name": name})
    corpus = tmp_path / "labelled.jsonl"
    write_labelled(corpus)
    return smoke.updated({
        "task.name": name,
        "model.architecture": next(a for a in ARCHITECTURES if ARCHITECTURES[a].ranks_labels),
        "data.corpus": str(corpus),
        "data.label_column": "label",
    })  # fmt: skip


@pytest.fixture
def task(trained: Experiment) -> Task:
    """Return the task."""
    return task_of(trained)


@pytest.fixture
def rows(trained: Experiment, name: str, cache: Path) -> Tokens:
    """Return some clients' rows, of the task's own population if it makes one."""
    population = open_population(prepare_for(trained, cache))
    most = population.description.vocabulary_size if TASKS[name].generation else VOCABULARY
    return np.concatenate(
        [np.minimum(population.examples(client), most - 1) for client in range(5)]
    )


def outputs_on(batch: Batch) -> torch.Tensor:
    """Return logits that depend only on a position's token, and so not on the batch."""
    table = torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))
    return table[torch.from_numpy(batch.inputs[batch.asked]).long()]


def test_a_batch_asks_something_of_what_is_read_and_nothing_of_padding(
    task: Task, rows: Tokens
) -> None:
    batch = task.batch(rows)
    assert batch.inputs.shape == batch.targets.shape == batch.asked.shape
    assert len(batch) == len(rows)
    assert batch.count == np.count_nonzero(batch.targets != PAD) > 0
    assert not (batch.asked & (batch.inputs == PAD)).any()


def test_losses_equal_a_slow_evaluation(task: Task, rows: Tokens) -> None:
    batch = task.batch(rows)
    slow = 0.0
    for logits, target in zip(outputs_on(batch), batch.targets[batch.asked], strict=True):
        slow += float(task.losses(logits[None], torch.tensor([int(target)]))[0])
    counted = dict(zip(task.columns, task.counts(outputs_on(batch), batch, UNIGRAM), strict=True))
    assert counted["loss"] == pytest.approx(slow, rel=1e-5)
    assert (counted["examples"], counted["tokens"]) == (len(rows), batch.count)


def test_counts_add_up_over_batches_and_stay_within_their_bounds(task: Task, rows: Tokens) -> None:
    cut = len(rows) // 3
    parts = [task.batch(part) for part in (rows, rows[:cut], rows[cut:])]
    whole, *pieces = (task.counts(outputs_on(part), part, UNIGRAM) for part in parts)
    assert task.columns[: len(FIRST_COLUMNS)] == FIRST_COLUMNS
    np.testing.assert_allclose(sum(pieces), whole, rtol=1e-6)
    counted = dict(zip(task.columns, whole.tolist(), strict=True))
    for column, others in task.at_most.items():
        assert counted[column] == int(counted[column])
        assert all(counted[column] <= counted[other] for other in others)


def test_metrics_are_those_that_are_named(task: Task, rows: Tokens) -> None:
    batch = task.batch(rows)
    found = task.metrics(task.counts(outputs_on(batch), batch, UNIGRAM)[None])
    assert tuple(found) == task.names
    assert all(math.isfinite(value) for value in found.values())
    assert found["loss"] < task.highest_loss(VOCABULARY) * 10
    assert task.names[0] == "loss"
    assert task.score in task.shown
    assert task.deciding in {"loss", *({task.score} & task.curves.keys())}
    assert set(task.shown) <= set(task.names)
    assert set(task.ratios) <= set(task.names)
    for metric in ("loss", *task.ratios):
        places = task.columns_of(metric)
        assert places is not None
        counted = task.counts(outputs_on(batch), batch, UNIGRAM)
        assert found[metric] == pytest.approx(counted[places[0]] / counted[places[1]])
    nothing = task.metrics(np.zeros((2, len(task.columns))))
    assert tuple(nothing) == task.names
    assert math.isnan(nothing["loss"])


def test_the_table_is_all_that_a_run_needs(
    name: str, task: Task, trained: Experiment, cache: Path, tmp_path: Path
) -> None:
    experiment = trained.updated(
        {
            "server.rounds": 20 if name in {"parity", OWN} else 6,
            "client.learning_rate": 1.0,
        }
    )
    found = simulate(experiment, out=tmp_path / "run", cache=cache)
    assert found.summary.status == "finished"
    assert set(task.names) - {"unigram_loss"} == set(found.summary.heldout)
    folder = RunFolder(tmp_path / "run")
    assert folder.experiment() == found.experiment
    losses = [one.heldout["loss"] for one in folder.records() if one.heldout]
    assert losses[-1] < losses[0]
    if name in {"parity", OWN}:
        assert found.summary.metric("accuracy") > 0.9


def test_the_pages_command_on_two_workers_has_the_bits_of_one(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_page(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"^fedsi run .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    less = ["--set", "server.rounds=2", "--cache", str(cache), "--json"]
    found = []
    for more in (["--workers", "1"], ["--workers", "2"]):
        assert main([*shlex.split(command)[1:], *less, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["model_sha256"] == found[1]["model_sha256"]
    assert "heldout_accuracy" in found[0]


def test_tables_have_the_tasks_own_names(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_page(tmp_path, monkeypatch)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setitem(TASKS.entries, "parity", "my_task")
    places = ["--out", str(tmp_path / "run"), "--cache", str(cache)]
    sets = ["--set", "task.name=parity", "--set", "server.rounds=2"]
    assert main(["run", "--verbose", "--preset", "smoke", *sets, *places]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"held-out ([a-z ]+?) +│", shown) == ["loss", "accuracy"]
    assert "unigram" not in shown
    assert main(["evaluate", str(tmp_path / "run"), "--cache", str(cache)]) == 0
    header = capsys.readouterr().out.splitlines()[2]
    assert re.findall(r"\w+", header) == ["length", "tokens", "loss", "accuracy"]


def test_an_own_task_that_fails_is_one_sentence(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_page(tmp_path, monkeypatch)
    with (tmp_path / "my_task.py").open("a") as file:
        file.write("\n\ndef fails(rows):\n    return rows.nothing\n\n\n")
        file.write("from dataclasses import replace\nFAILS = replace(TASK, batch=fails)\n")
    command = ["run", "--preset", "smoke", "--set", "task.name=my_task:FAILS"]
    assert main([*command, "--cache", str(cache), "--out", str(tmp_path / "run")]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert re.search(
        r"batch of my_task:FAILS failed: AttributeError: .*my_task\.py, line \d+\)$", line
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.name = 'next_wrod' .*did you mean next_word\?"):
        Experiment(task={"name": "next_wrod"})


def test_each_entry_ends_with_its_task() -> None:
    assert all(isinstance(TASKS[name], Task) for name in TASKS)
