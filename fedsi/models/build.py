"""The model that an experiment names."""

from fedsi.experiment import Experiment
from fedsi.models.recurrent import Recurrent
from fedsi.models.transformer import Transformer
from fedsi.models.trial import try_out
from fedsi.models.user_model import UserModel, load_user_model


def build_model(
    experiment: Experiment, vocabulary_size: int
) -> Recurrent | Transformer | UserModel:
    """Return the model of an experiment.

    Args:
        experiment: The configuration.
        vocabulary_size: Number of token ids, special tokens included.

    Raises:
        UserError: The experiment names a factory of the user's, and it or its module cannot be
            used.
    """
    if experiment.model.is_imported:
        path = experiment.model.architecture
        model = load_user_model(path, vocabulary_size, experiment.seed)
        try_out(model, experiment.data.sequence_length)
        return model
    if experiment.model.is_transformer:
        return Transformer(experiment.model, vocabulary_size)
    return Recurrent(experiment.model, vocabulary_size)
