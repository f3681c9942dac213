"""Initial weights of a run: from another run, or from a file with its vocabulary beside it.

The path is ``model.init_from``. The SHA-256 of the file is part of the experiment, because the
run's bits depend on it.
"""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from fedsi.checksums import CHECKSUMS, Checksums
from fedsi.data.vocabulary import VOCABULARY_FILES, load_vocabulary, parse_vocabulary
from fedsi.errors import DamagedError, UserError
from fedsi.experiment import Experiment
from fedsi.files import sha256_of_file
from fedsi.learning.teacher import teacher_file
from fedsi.models.build import build_model
from fedsi.models.warm_start import matched, misfits, warm_started, word_axes
from server.rounds import ServerState
from server.runs.folder import EXPERIMENT, MODEL, RunFolder

_DRAWING = {"model.init_from", "model.init_sha256", "model.initialisation"}
"""Keys ``model.*`` that affect only the initial weights, not the computation."""

WARM_START = "warm_start"
"""Key of the word counts of a warm start among the facts of a run."""


def with_hash(experiment: Experiment) -> Experiment:
    """Return the experiment with the SHA-256 of its initial weights and teacher, if it has any.

    Raises:
        UserError: The file is missing, or does not match the experiment's hash.
    """
    experiment = _with_teacher(experiment)
    file, expected = weights_file(experiment), experiment.model.init_sha256
    if file is None:
        return experiment
    try:
        found = sha256_of_file(file)
    except OSError as error:
        if expected:
            return experiment  # a resumed run no longer needs them
        raise UserError(
            f"cannot read model.init_from={file}: {error.strerror}; name the folder of a finished "
            "run, or a .safetensors file"
        ) from None
    if expected not in {None, found}:
        raise UserError(
            f"model.init_from={file} has the SHA-256 {found[:16]}..., and the experiment was "
            f"written for {str(expected)[:16]}... (model.init_sha256); put that file back, or "
            "leave model.init_sha256 out"
        )
    return experiment.updated({"model.init_sha256": found})


def with_known_hash(experiment: Experiment, begun: Experiment) -> Experiment:
    """Return the experiment with the hashes of files that a run of it began with.

    Hashes that it names itself are kept.

    Args:
        experiment: The configuration that is asked for.
        begun: That of the run.
    """
    model, algorithm, known = experiment.model, experiment.algorithm, {}
    if model.init_from is not None and model.init_sha256 is None:
        known["model.init_sha256"] = begun.model.init_sha256
    if algorithm.teacher is not None and algorithm.teacher_sha256 is None:
        known["algorithm.teacher_sha256"] = begun.algorithm.teacher_sha256
    return experiment.updated(known) if known else experiment


def _with_teacher(experiment: Experiment) -> Experiment:
    """Return the experiment with the SHA-256 of its teacher's model, if it has one.

    Raises:
        UserError: The file is missing.
    """
    file = teacher_file(experiment)
    if file is None or experiment.algorithm.teacher_sha256 is not None:
        return experiment
    try:
        return experiment.updated({"algorithm.teacher_sha256": sha256_of_file(file)})
    except OSError as error:
        raise UserError(
            f"cannot read algorithm.teacher={file.parent}: {error.strerror} ({file.name}); name "
            "the folder of a finished run"
        ) from None


def weights_file(experiment: Experiment) -> Path | None:
    """Return the file of the initial weights, or None if they are drawn."""
    if experiment.model.init_from is None:
        return None
    path = Path(experiment.model.init_from)
    return path / MODEL if path.is_dir() else path


def warm_state(
    experiment: Experiment, fresh: ServerState, vocabulary: tuple[str, str]
) -> tuple[ServerState, dict[str, Any]]:
    """Return the state before the first round of a run with given initial weights.

    Args:
        experiment: The configuration, ``with_hash``.
        fresh: The state before the first round with drawn weights.
        vocabulary: Name and text of the file of the run's own vocabulary.

    Returns:
        The state; and the numbers of words that have the source model's rows, are new, or were
        dropped.

    Raises:
        UserError: The weights cannot be read, do not fit the model, or have no vocabulary.
    """
    file = weights_file(experiment)
    assert file is not None, "such an experiment was given"  # noqa: S101
    here, there = parse_vocabulary(*vocabulary), _vocabulary_beside(file)
    _check_settings(experiment, file)
    source, model = _read(file), build_model(experiment, len(here))
    axes = word_axes(experiment, len(here))
    trained = {name: value for name, value in source.items() if name not in model.frozen}
    wrong = misfits(model.layout, axes, trained, len(there))
    if wrong:
        raise UserError(
            f"the weights in {file} do not fit model.architecture={experiment.model.architecture} "
            f"with this experiment's sizes: {'; '.join(wrong)}; set the model.* keys that they "
            "were trained with"
        )
    try:
        words = matched(here, there)
    except UserError as error:
        raise UserError(f"model.init_from={experiment.model.init_from}: {error}") from None
    drawn = torch.from_numpy(fresh.parameters)
    flat = warm_started(drawn, model.layout, axes, trained, words).numpy()
    counts = {"words_kept": words.kept, "words_new": words.new, "words_dropped": words.dropped}
    facts = {"from": str(file), "sha256": experiment.model.init_sha256, **counts}
    return replace(fresh, parameters=flat), facts


def told(facts: dict[str, Any]) -> str:
    """Return a sentence with the numbers of words kept, new and dropped."""
    return (
        f"started from {facts['from']}: {facts['words_kept']:,} words keep their weights, "
        f"{facts['words_new']:,} are new and drawn, and {facts['words_dropped']:,} of its words "
        "were dropped"
    )


def _check_settings(experiment: Experiment, file: Path) -> None:
    """Refuse weights that were trained with other settings, even if their shapes fit.

    Raises:
        UserError: The run of the weights had another value of a key ``model.*``.
    """
    if not (file.parent / EXPERIMENT).exists():
        return
    trained, wanted = RunFolder(file.parent).experiment().flat(), experiment.flat()
    different = [
        f"{key}={trained[key]}"
        for key in wanted
        if key.startswith("model.") and key not in _DRAWING and trained[key] != wanted[key]
    ]
    if different:
        raise UserError(
            f"the weights in {file} were trained with {', '.join(different)}; set the same, or "
            "another run with model.init_from"
        )


def _vocabulary_beside(file: Path) -> Any:
    if not any((file.parent / name).exists() for name in VOCABULARY_FILES):
        raise UserError(
            f"{file} has no vocabulary beside it, and the rows of its embedding stand for words; "
            f"put the {' or '.join(VOCABULARY_FILES)} that belongs to it into {file.parent}"
        )
    return load_vocabulary(file.parent)


def _read(file: Path) -> dict[str, torch.Tensor]:
    advice = "put back the file that was written there, or name another one with model.init_from"
    try:
        content = file.read_bytes()
        if (file.parent / CHECKSUMS).exists():
            whole = Checksums.read(file.parent, advice).whole
            if whole.get(file.name, "") not in {"", sha256(content).hexdigest()}:
                raise DamagedError(f"{file} is damaged: its SHA-256 is another; {advice}")
        return dict(load(content))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; {advice}") from None
    except (SafetensorError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}; {advice}") from None
