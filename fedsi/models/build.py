"""Construction of the model that an experiment names, and its initial parameters."""

import numpy as np
from torch import Tensor

from fedsi.data.labels import LabelTokens
from fedsi.data.population import Population
from fedsi.data.vocabulary import Vocabulary, label_texts
from fedsi.errors import UserError
from fedsi.experiment import Experiment
from fedsi.models.model import Model
from fedsi.models.table import architecture
from fedsi.models.user_model import load_user_model
from fedsi.models.user_model_check import try_model
from fedsi.seeds import Purpose, generator
from fedsi.tables import load
from fedsi.tasks.table import task_of

MOST_PARAMETERS = 10**9


def model_for(experiment: Experiment, population: Population) -> Model:
    """Return the model of an experiment for the clients of a population, and for its labels.

    Raises:
        UserError: As ``build_model``.
    """
    size = population.description.vocabulary_size
    labelled = population.answers is not None
    return build_model(experiment, size, population.vocabulary() if labelled else None)


def build_model(
    experiment: Experiment, vocabulary_size: int, vocabulary: Vocabulary | None = None
) -> Model:
    """Return the model of an experiment.

    Args:
        experiment: The configuration.
        vocabulary_size: Number of token ids, special tokens included.
        vocabulary: The vocabulary with the labels that the model ranks; None if it computes nothing
            or ranks words.

    Raises:
        UserError: The experiment names a user's factory, and the factory or its module cannot be
            used.
    """
    settings = experiment.model
    if settings.is_imported:
        user_model = load_user_model(settings, vocabulary_size, experiment.seed)
        try_model(user_model, experiment.data.sequence_length)
        return user_model
    entry = architecture(settings.architecture)
    more: list[object] = [task_of(experiment).streams] if entry.takes_ids else []
    if entry.ranks_labels:
        more.append(_labels(experiment, vocabulary_size, vocabulary))
    model: Model = load(entry.build)(settings, vocabulary_size, *more)
    return model


def _labels(
    experiment: Experiment, vocabulary_size: int, vocabulary: Vocabulary | None
) -> LabelTokens:
    """Return the labels that a model ranks: those of its task or, without any, the token ids."""
    if task_of(experiment).bound is None:
        return LabelTokens(vocabulary_size, np.arange(vocabulary_size, dtype=np.int32)[:, None])
    if vocabulary is None:
        return LabelTokens(experiment.task.labels)
    tokens = label_texts(vocabulary, experiment.data.sequence_length)
    return LabelTokens(experiment.task.labels, tokens)


def initial_parameters(model: Model, seed: int) -> Tensor:
    """Draw the initial parameters, a pure function of the seed.

    Returns:
        The flat vector, float32 ``[parameters]``.

    Raises:
        UserError: The model is too large for any device, or a user's model does not draw the same
            parameters again.
    """
    if model.layout.size > MOST_PARAMETERS:
        raise UserError(
            f"the model would have {model.layout.size:,} parameters, at most {MOST_PARAMETERS:,} "
            "are allowed; reduce model.hidden_size, model.embedding_size or data.vocabulary_size"
        )
    return model.draw(generator(seed, Purpose.INITIALISATION))
