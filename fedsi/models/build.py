"""Construction of the model that an experiment names."""

from fedsi.experiment import Experiment
from fedsi.models.model import Model
from fedsi.models.table import architecture
from fedsi.models.user_model import load_user_model
from fedsi.models.user_model_check import try_model
from fedsi.tables import load


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
    model: Model = load(architecture(settings.architecture).build)(settings, vocabulary_size)
    return model
