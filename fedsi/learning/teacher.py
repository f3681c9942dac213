"""The teacher of a distillation: the model of a finished run, and the loss against it."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedsi.data.vocabulary import Vocabulary, load_vocabulary
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.files import sha256_of_file
from fedsi.learning.predictions import predictions
from fedsi.models.build import build_model
from fedsi.models.parameters import Parameters
from fedsi.tasks.task import Batch

EXPERIMENT_FILE, MODEL_FILE = "experiment.toml", "model.safetensors"
"""The files of a run that a teacher is read from, besides its vocabulary."""


class Teacher:
    """A trained model whose probabilities are a learner's targets.

    Args:
        experiment: An experiment with ``algorithm.teacher``.
        vocabulary: The vocabulary of its corpus.

    Raises:
        UserError: The folder has no run, another file than the experiment was written for, another
            vocabulary, or a custom model.
    """

    def __init__(self, experiment: Experiment, vocabulary: Vocabulary) -> None:
        folder = Path(str(experiment.algorithm.teacher))
        check_teacher(experiment, vocabulary)
        trained = Experiment.from_file(folder / EXPERIMENT_FILE)
        self._model = build_model(trained, len(vocabulary))
        self._parameters = _read(self._model.layout.shapes, folder)
        self._temperature = experiment.algorithm.temperature
        self._targets: Tensor | None = None

    def before(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches; the loss is that of the latest one."""
        for batch in batches:
            with torch.no_grad():
                logits, _ = predictions(self._model, self._parameters, batch)
                self._targets = (logits / self._temperature).softmax(-1)
            yield batch

    def losses(self, outputs: Tensor, _targets: Tensor) -> Tensor:
        """Return ``-T^2 sum_w p_w log q_w`` at each position, in nats, ``[targets]``.

        ``p`` and ``q`` are the softmax of the teacher's and the learner's logits over the
        temperature ``T``; ``T^2`` keeps the gradient's size (arXiv 1503.02531, section 2).

        Args:
            outputs: The learner's logits, ``[targets, vocabulary]``.
        """
        assert self._targets is not None, "no batch was yielded"  # noqa: S101
        heat = self._temperature
        likelihoods = (outputs / heat).log_softmax(-1)
        return -(heat**2) * (self._targets * likelihoods).sum(-1)


def teacher_file(experiment: Experiment) -> Path | None:
    """Return the file of the teacher's parameters; None without a teacher."""
    folder = experiment.algorithm.teacher
    return None if folder is None else Path(folder) / MODEL_FILE


def check_teacher(experiment: Experiment, vocabulary: Vocabulary) -> None:
    """Refuse a teacher that cannot be read, or whose words are not those of the corpus.

    Raises:
        UserError: As ``Teacher``.
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
