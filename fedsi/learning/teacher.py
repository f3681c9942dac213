"""The teacher of a distillation: the model of a finished run."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from fedsi.data.vocabulary import Vocabulary, load_vocabulary
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.files import sha256_of_file
from fedsi.learning.soft_targets import SoftTargets, logits_of
from fedsi.models.build import build_model
from fedsi.models.parameters import Parameters

EXPERIMENT_FILE, MODEL_FILE = "experiment.toml", "model.safetensors"
"""The files of a run that a teacher is read from, besides its vocabulary."""


def teacher_of(experiment: Experiment, vocabulary: Vocabulary) -> SoftTargets:
    """Return the probabilities of a trained model as a learner's targets.

    Args:
        experiment: An experiment with ``algorithm.teacher``.
        vocabulary: The vocabulary of its corpus.

    Raises:
        UserError: The folder has no run, another file than the experiment was written for, another
            vocabulary, or a custom model.
    """
    folder = Path(str(experiment.algorithm.teacher))
    check_teacher(experiment, vocabulary)
    trained = Experiment.from_file(folder / EXPERIMENT_FILE)
    model = build_model(trained, len(vocabulary))
    parameters = _read(model.layout.shapes, folder)
    return SoftTargets(logits_of(model, parameters), experiment.algorithm.temperature)


def teacher_file(experiment: Experiment) -> Path | None:
    """Return the file of the teacher's parameters; None without a teacher."""
    folder = experiment.algorithm.teacher
    return None if folder is None else Path(folder) / MODEL_FILE


def check_teacher(experiment: Experiment, vocabulary: Vocabulary) -> None:
    """Refuse a teacher that cannot be read, or whose words are not those of the corpus.

    Raises:
        UserError: As ``teacher_of``.
    """
    folder, key = Path(str(experiment.algorithm.teacher)), "algorithm.teacher"
    try:
        found = sha256_of_file(folder / MODEL_FILE)
    except OSError as error:
        raise UserError(
            f"cannot read {key}={folder}: {error.strerror}; name the folder of a finished run"
        ) from None
    if experiment.algorithm.teacher_sha256 not in {None, found}:
        raise UserError(
            f"the model in {key}={folder} has the SHA-256 {found[:16]}..., and the experiment was "
            f"written for {str(experiment.algorithm.teacher_sha256)[:16]}...; put that run back"
        )
    trained = Experiment.from_file(folder / EXPERIMENT_FILE)
    if trained.model.is_imported or trained.task.name != "next_word":
        raise UserError(
            f"{key}={folder} has model.architecture={trained.model.architecture} and task.name="
            f"{trained.task.name}; a teacher is a built-in model of next words"
        )
    if load_vocabulary(folder).file_text() != vocabulary.file_text():
        raise UserError(
            f"{key}={folder} has another vocabulary than the corpus {experiment.data.corpus}, so "
            "its probabilities are of other words; train it with the same data.vocabulary, such as "
            "a word list or public"
        )


def _read(shapes: dict[str, tuple[int, ...]], folder: Path) -> Parameters:
    try:
        found = load_file(folder / MODEL_FILE)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"cannot read algorithm.teacher={folder}: {error}; name the folder of a finished run"
        ) from None
    if {name: tuple(value.shape) for name, value in found.items()} != dict(shapes):
        raise UserError(
            f"the files in algorithm.teacher={folder} do not belong together; name the folder of a "
            "finished run as fedsi wrote it"
        )
    return found
