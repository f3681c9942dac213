"""Construction of the model that an experiment names, and its initial parameters."""

from torch import Tensor

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


def build_model(experiment: Experiment, vocabulary_size: int) -> Model:
    """Return the model of an experiment.

    Args:
        experiment: The configuration.
        vocabulary_size: Number of token ids, special tokens included.

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
    streams = [task_of(experiment).streams] if entry.takes_ids else []
    model: Model = load(entry.build)(settings, vocabulary_size, *streams)
    return model


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
