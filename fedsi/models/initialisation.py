"""Initial parameters as a pure function of the seed."""

from torch import Tensor

from fedsi.errors import UserError
from fedsi.models.model import Model
from fedsi.seeds import Purpose, generator

MOST_PARAMETERS = 10**9


def initial_parameters(model: Model, seed: int) -> Tensor:
    """Draw the initial parameters.

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
