"""The model that an experiment names."""

from fedsi.experiment import Experiment
from fedsi.models.language_model import LanguageModel
from fedsi.models.transformer import Transformer
from fedsi.models.user_model import UserModel, load_user_model


def build_model(
    experiment: Experiment, vocabulary_size: int
) -> LanguageModel | Transformer | UserModel:
    """Return the model of an experiment.

    Args:
        experiment: The configuration.
        vocabulary_size: Number of token ids, special tokens included.

    Raises:
        UserError: The experiment names a factory of the user's, and it or its module cannot be
            used.
    """
    if experiment.model.is_imported:
        return load_user_model(
            experiment.model.architecture, vocabulary_size, experiment.data.sequence_length
        )
    if experiment.model.is_transformer:
        return Transformer(experiment.model, vocabulary_size)
    return LanguageModel(experiment.model, vocabulary_size)
