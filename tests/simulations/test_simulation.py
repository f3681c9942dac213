"""Whole runs from Python: results, files, resuming."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict
from safetensors.torch import load_file

from fedsi import Experiment, UserError
from fedsi.data.prepare import open_population, prepare
from fedsi.data.synthetic import SyntheticPopulation
from fedsi.data.vocabulary import load_vocabulary
from fedsi.kernels.cpu.product_choice import usual_products
from server.app import PARAMETERS, RESULT, SUMMARY
from server.app import app as server_app
from server.configuration import RunConfiguration
from server.round_record import RoundRecord
from server.runs.summary import Summary
from simulations import simulate
from simulations.presets import load_preset
from tests.conftest import shared_file
from tests.server.fake_grid import FakeGrid

RUN_FILES = {
    "checkpoint.safetensors", "checksums.json", "curves.png", "curves.svg", "experiment.toml",
    "model.safetensors", "ngrams.json", "provenance.json", "rounds.csv", "summary.json",
    "vocabulary.txt",
}  # fmt: skip


def test_a_run_leaves_its_folder(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    result = simulate(smoke, out=tmp_path / "run", cache=cache)
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FILES
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == result.summary.to_json()
    stored = Experiment.from_file(tmp_path / "run" / "experiment.toml")
    assert stored == result.experiment == smoke.updated({"client.products": usual_products()})
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert saved.keys() == result.parameters.keys()
    assert all(torch.equal(saved[name], p) for name, p in result.parameters.items())
    assert sum(p.numel() for p in saved.values()) == result.summary.parameters
    assert load_vocabulary(tmp_path / "run").decode([4, 5]) == "word0 word1"
    required = (
        "architecture parameters rounds clients_trained tokens_trained heldout_loss "
        "heldout_perplexity heldout_accuracy unigram_loss corpus corpus_sha256 population "
        "model_sha256 train_seconds clients_per_second tokens_per_second versions"
    )
    assert set(required.split()) <= result.summary.to_json().keys()
    assert result.summary.clients_trained == 40
    assert result.summary.heldout["perplexity"] == pytest.approx(
        math.exp(result.summary.metric("loss"))
    )


def test_nothing_is_written_without_a_folder(
    smoke: Experiment, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(smoke.data, cache)
    monkeypatch.chdir(tmp_path)
    simulate(smoke.updated({"server.rounds": 1}), cache=cache)
    assert list(tmp_path.iterdir()) == []


class StopError(Exception):
    """An error that ends a run early."""


def stop_after(number: int):  # type: ignore[no-untyped-def]
    def on_round(_experiment: Experiment, record: RoundRecord) -> None:
        if record.round == number:
            raise StopError

    return on_round


@pytest.mark.parametrize(
    ("optimizer", "stopped", "workers"),
    [
        pytest.param("adam", 1, 2, marks=pytest.mark.slow),
        ("adam", 2, 1),
        pytest.param("sgdm", 3, 2, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(
    smoke: Experiment, cache: Path, tmp_path: Path, optimizer: str, stopped: int, workers: int
) -> None:
    changing = {"server.schedule": "cosine", "server.warm_up_rounds": 2, "server.weight_decay": 0.1}
    optimised = {"server.optimizer": optimizer, "server.learning_rate": 0.1}
    experiment = smoke.updated(optimised | changing)
    whole = simulate(experiment, cache=cache).summary
    with pytest.raises(StopError):
        simulate(experiment, out=tmp_path / "r", cache=cache, on_round=stop_after(stopped))
    with pytest.raises(UserError, match="already holds a run"):
        simulate(experiment, out=tmp_path / "r", cache=cache)
    seen: list[int] = []
    resumed = simulate(
        experiment,
        out=tmp_path / "r",
        cache=cache,
        resume=True,
        workers=workers,
        on_round=lambda _, record: seen.append(record.round),
    ).summary
    assert seen == list(range(stopped + 1, 5))
    for key in ("model_sha256", "heldout_loss", "clients_trained", "tokens_trained", "rounds"):
        assert getattr(resumed, key) == getattr(whole, key)
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names - {"best.safetensors"} == RUN_FILES


def test_resuming_a_finished_run_runs_nothing(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    first = simulate(smoke, out=folder, cache=cache)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = simulate(smoke, out=folder, cache=cache, resume=True)
    assert again.summary == first.summary
    assert all(torch.equal(again.parameters[name], p) for name, p in first.parameters.items())
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    kept = {name: (folder / name).read_bytes() for name in ("ngrams.json", "curves.svg")}
    for name in (*kept, "curves.png"):
        (folder / name).unlink()  # as if it was stopped while these were being made
    assert simulate(smoke, out=folder, cache=cache, resume=True).baselines
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    with pytest.raises(UserError, match=r"run of another experiment \(seed is 0 there and 1 here"):
        simulate(smoke.updated({"seed": 1}), out=folder, cache=cache, resume=True)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        simulate(smoke, out=folder, cache=cache, resume=True)


def test_flowers_server_too_hands_over_a_finished_run(
    smoke: Experiment, cache: Path, tmp_path: Path
) -> None:
    first = simulate(smoke, out=tmp_path, cache=cache)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    config = RunConfiguration(smoke, folder=tmp_path, resume=True).to_flower()
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    server_app(FakeGrid({}), context)
    handed_over = str(context.state.config_records[RESULT][SUMMARY])
    assert Summary.from_text(handed_over, "the result") == first.summary
    flat = context.state.array_records[PARAMETERS][PARAMETERS].numpy()
    assert flat.tolist() == torch.cat([p.flatten() for p in first.parameters.values()]).tolist()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_seeds_give_different_models(smoke: Experiment, cache: Path) -> None:
    hashes = {
        simulate(smoke.updated({"seed": seed}), cache=cache).summary.model_sha256 for seed in (0, 1)
    }
    assert len(hashes) == 2


@pytest.mark.parametrize("architecture", ["cifg", "si_cifg"])
def test_a_model_beats_unigrams_and_not_the_generator(cache: Path, architecture: str) -> None:
    experiment = load_preset("smoke").updated(
        {"model.architecture": architecture, "server.rounds": 40, "server.evaluate_every": 40}
    )
    summary = simulate(experiment, cache=cache).summary
    population = open_population(prepare(experiment.data, cache))
    assert isinstance(population, SyntheticPopulation)
    assert summary.unigram_loss
    assert summary.metric("loss") < summary.unigram_loss - 0.2
    assert summary.metric("loss") > population.best_loss(range(180, 200))


def test_a_diverging_run_is_a_result(smoke: Experiment, cache: Path, tmp_path: Path) -> None:
    wild = smoke.updated({"client.learning_rate": 1e6, "model.architecture": "cifg"})
    summary = simulate(wild, out=tmp_path / "r", cache=cache).summary
    assert summary.status == "diverged"
    assert json.loads((tmp_path / "r" / "summary.json").read_text()) == summary.to_json()
    assert (tmp_path / "r" / "curves.png").exists()


def test_every_update_rejected_is_divergence(smoke: Experiment, cache: Path) -> None:
    summary = simulate(smoke.updated({"client.learning_rate": 1e30}), cache=cache).summary
    assert summary.status == "diverged"
    assert summary.rounds == 1
    assert summary.clients_rejected == 10
    assert summary.clients_trained == 0


def test_the_smoke_preset_is_quick(cache: Path) -> None:
    summary = simulate(load_preset("smoke"), cache=cache).summary
    assert summary.unigram_loss
    assert summary.metric("loss") < summary.unigram_loss


def test_a_plain_script_may_use_workers(cache: Path, tmp_path: Path) -> None:
    # No main guard, as in a notebook: nothing of the script is run again in a worker.
    script = f"""
from pathlib import Path
from fedsi import Experiment
from server.runs.summary import Summary
from simulations import simulate
tiny = dict(data=dict(corpus="synthetic", population=20, vocabulary_size=20),
            model=dict(embedding_size=4, hidden_size=4), server=dict(rounds=1, cohort_size=4))
print(simulate(Experiment(**tiny), workers=2, cache=Path({str(cache)!r})).summary.status)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-"], input=script, capture_output=True, text=True, cwd=tmp_path,
        env=environment, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("finished\n", 0), done.stderr


@pytest.mark.parametrize(
    ("name", "clients", "margin"),
    [
        ("shakespeare/shakespeare.jsonl", 1339, 0.1),
        pytest.param("ubuntu-irc/ubuntu_irc.jsonl.gz", 17218, 0.05, marks=pytest.mark.slow),
    ],
)
def test_real_text_beats_its_unigram_loss(
    cache: Path, name: str, clients: int, margin: float
) -> None:
    experiment = Experiment(
        data={
            "corpus": str(shared_file(name)),
            "vocabulary_size": 1000,
            "max_examples_per_client": 64,
        },
        model={"embedding_size": 32, "hidden_size": 48},
        server={
            "rounds": 25,
            "learning_rate": 0.03,
            "evaluate_every": 25,
            "evaluation_clients": 60,
        },
    )
    summary = simulate(experiment, cache=cache).summary
    assert summary.population == clients
    assert summary.unigram_loss
    assert summary.metric("loss") < summary.unigram_loss - margin
