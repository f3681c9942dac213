"""Runs that start from the weights of another run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fedsi import Experiment, UserError
from fedsi.data.corpus import silent
from fedsi.data.prepare import open_population, prepare_for
from server.round_record import RoundRecord
from server.runs.folder import RunFolder
from simulations import simulate
from simulations.cli.main import main
from simulations.finished_run import open_run
from simulations.studies.finished import read_study
from simulations.studies.measured import measure
from simulations.studies.runner import check_same, is_finished
from simulations.studies.study import Study

TEXTS = ["the cat sat on the mat", "a dog ran to the cat", "the bird sat", "a cat and a dog ran"]


def corpus(path: Path, *, extra: str) -> Path:
    """Write a corpus of some users."""
    lines = [
        json.dumps({"user": f"u{user}", "text": f"{TEXTS[(user + k) % 4]} {extra}"})
        for user in range(20)
        for k in range(6)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Experiment]:
    """Return a run to start from, and an experiment on another corpus."""
    folder = tmp_path_factory.mktemp("warm")
    experiment = Experiment(
        data={"corpus": str(corpus(folder / "one.jsonl", extra="far away")), "vocabulary_size": 30},
        model={"embedding_size": 8, "hidden_size": 8},
        client={"max_steps": 4},
        server={"rounds": 4, "cohort_size": 6, "evaluate_every": 2, "learning_rate": 0.1},
    )
    simulate(experiment, out=folder / "base", cache=cache)
    other = corpus(folder / "two.jsonl", extra="long ago")
    return folder / "base", experiment.updated({"data.corpus": str(other)})


def test_a_run_starts_from_weights_by_word(
    base: tuple[Path, Experiment],
    cache: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, other = base
    warm = other.updated({"model.init_from": str(run), "server.learning_rate": 1e-9})
    summary = simulate(warm, out=tmp_path / "r", cache=cache).summary
    facts = summary.warm_start
    assert facts
    assert (facts["words_new"], facts["words_dropped"]) == (2, 2)
    assert facts["words_kept"] == summary.vocabulary_size - 4 - 2
    assert "2 are new and drawn, and 2 of its words were dropped" in caplog.text
    cold = simulate(other, cache=cache).summary
    first = open_run(run).summary.heldout_loss
    assert summary.heldout_loss
    assert cold.unigram_loss
    assert first
    assert summary.heldout_loss < cold.unigram_loss - 0.3
    assert abs(summary.heldout_loss - first) < 0.8
    one, two = (open_run(place).trained for place in (run, tmp_path / "r"))
    for word in ("cat", "the", "ran"):
        (old,), (new,) = one.vocabulary.encode(word), two.vocabulary.encode(word)
        rows = one.parameters["embedding"][old], two.parameters["embedding"][new]
        torch.testing.assert_close(*rows, atol=1e-5, rtol=1e-5)
    written = RunFolder(tmp_path / "r").experiment().model
    assert written.init_sha256 == open_run(run).summary.model_sha256


def test_a_warm_run_has_its_bits_whenever_it_is_interrupted(
    base: tuple[Path, Experiment], cache: Path, tmp_path: Path
) -> None:
    run, other = base
    place = tmp_path / "public"
    place.mkdir()
    for name in ("model.safetensors", "vocabulary.txt"):
        (place / name).write_bytes((run / name).read_bytes())
    warm = other.updated({"model.init_from": str(place / "model.safetensors")})
    whole = simulate(warm, cache=cache, workers=2).summary
    assert whole.model_sha256 != simulate(other, cache=cache).summary.model_sha256

    def interrupt(_: Experiment, record: RoundRecord) -> None:
        if record.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(warm, out=tmp_path / "r", cache=cache, on_round=interrupt)
    (place / "model.safetensors").unlink()  # a run that has begun needs it no longer
    command = ["run", "--resume", "--out", str(tmp_path / "r"), "--cache", str(cache)]
    assert main(command) == 0
    found = RunFolder(tmp_path / "r").summary()
    assert found
    assert found.model_sha256 == whole.model_sha256
    started = found.warm_start
    assert started == whole.warm_start


def test_weights_that_do_not_fit_are_refused(
    base: tuple[Path, Experiment],
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, other = base
    for key, value in {"hidden_size": 9, "embedding_normalisation": "none"}.items():
        changed = other.updated({"model.init_from": str(run), f"model.{key}": value})
        with pytest.raises(UserError, match=rf"were trained with model\.{key}="):
            simulate(changed, cache=cache)
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("model.safetensors", "vocabulary.txt"):
        (alone / name).write_bytes((run / name).read_bytes())
    wide = other.updated({"model.init_from": str(alone), "model.hidden_size": 9})
    with pytest.raises(UserError, match=r"cell\.recurrent is \[8, 24\] and should be \[9, 27\]; "):
        simulate(wide, cache=cache)
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes((run / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match="has no vocabulary beside it, and the rows"):
        simulate(other.updated({"model.init_from": str(bare)}), cache=cache)
    bare.write_bytes(b"short")
    (tmp_path / "vocabulary.txt").write_bytes((run / "vocabulary.txt").read_bytes())
    with pytest.raises(UserError, match=r"cannot read .*bare\.safetensors"):
        simulate(other.updated({"model.init_from": str(bare)}), cache=cache)
    with pytest.raises(UserError, match=r"init_sha256\); put that file back"):
        simulate(
            other.updated({"model.init_from": str(run), "model.init_sha256": "0" * 64}),
            cache=cache,
        )
    missing = ["run", "--init-from", str(tmp_path / "no"), "--cache", str(cache)]
    assert main([*missing, "--preset", "smoke", "--out", str(tmp_path / "r")]) == 2
    assert "name the folder of a finished run" in capsys.readouterr().err


def test_a_private_run_is_told_what_epsilon_does_not_cover(
    base: tuple[Path, Experiment], cache: Path
) -> None:
    run, other = base
    private = other.updated(
        {
            "model.init_from": str(run),
            "server.rounds": 1,
            "server.sampling": "poisson",
            "server.averaging": "uniform",
            "privacy.mechanism": "gaussian",
            "privacy.noise_multiplier": 1.0,
            "privacy.delta": 1e-5,
            "data.vocabulary": str(run / "vocabulary.txt"),
        }
    )
    with pytest.warns(UserWarning, match="epsilon does not cover what they were trained on"):
        facts = simulate(private, cache=cache).summary.warm_start
    assert facts
    assert (facts["words_new"], facts["words_dropped"]) == (0, 0)


def test_a_study_over_starts_goes_on_with_the_same_weights_only(
    base: tuple[Path, Experiment], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = base
    source = Path(shutil.copytree(run, tmp_path / "public"))
    (tmp_path / "study.toml").write_text(
        'experiment = "e.toml"\ncompare = ["model.init_from"]\n'
        '[[axes]]\nkey = "model.init_from"\nvalues = ["none", "public"]\n'
    )
    (tmp_path / "e.toml").write_text(other.updated({"server.rounds": 1}).to_toml())
    study = Study.from_file(tmp_path / "study.toml")
    trials = {trial.name: trial for trial in study.trials()}
    folder = tmp_path / "out"
    for name, trial in trials.items():
        assert name.startswith(("init_fromnone-", "init_frompublic-"))
        simulate(trial.experiment, out=folder / "runs" / name, cache=cache)
        measure(folder / "runs" / name, cache, ())
        assert is_finished(RunFolder(folder / "runs" / name), trial.experiment)
    monkeypatch.chdir(folder)  # a study's paths are those of its file
    (folder / "study.toml").write_text(study.to_toml())
    result, failures = read_study(Study.from_file(folder / "study.toml"), folder)
    assert not failures
    told = [summary.warm_start is None for summary in (one.summary for one in result.results)]
    assert told == [True, False]
    experiments = {name: trial.experiment for name, trial in trials.items()}
    population = open_population(prepare_for(study.experiment, cache, silent))
    check_same(experiments, folder / "runs", lambda _: population)
    (source / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"SHA-256 .* put that file back"):
        check_same(experiments, folder / "runs", lambda _: population)
