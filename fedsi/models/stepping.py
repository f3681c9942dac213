"""A text read piece by piece: the model keeps what it needs of the words before.

Recurrent models keep their state, Transformers the keys and values of every word. What comes out is
what ``features`` gives for the whole text at once, so the next word after each keystroke costs one
step.
"""

import torch
from torch import Tensor

from fedsi.models.cells import ACTIVATIONS, advance, dense
from fedsi.models.language_model import LanguageModel, embed
from fedsi.models.parameters import Parameters
from fedsi.models.transformer import Transformer

Memory = list[tuple[Tensor, Tensor]]
"""State and cell, or keys and values of each block; empty before the first word."""


def read_on(
    model: LanguageModel | Transformer, parameters: Parameters, inputs: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    """Read tokens that follow those of a memory.

    Args:
        model: The model's functions.
        parameters: Named tensors, ``[*, ...]``.
        inputs: Token ids, ``[*, batch, time]``, at least one of each sequence.
        memory: What the same function returned for the tokens before; empty if there are none.

    Returns:
        The features of the new tokens, ``[*, batch, time, size]``, for ``model.logits``, and the
        memory with them; the one that was passed in stays as it was.

    Raises:
        UserError: More tokens in all than the model has learned positions.
    """
    if isinstance(model, Transformer):
        return model.continued(parameters, inputs, memory)
    return _recur(model, parameters, inputs, memory)


def _recur(
    model: LanguageModel, parameters: Parameters, inputs: Tensor, memory: Memory
) -> tuple[Tensor, Memory]:
    settings, recurrent = model.settings, parameters["cell.recurrent"]
    activations = ACTIVATIONS[settings.architecture]
    vectors = embed(settings, parameters, inputs)
    projected = dense(vectors, parameters["cell.kernel"], parameters["cell.bias"])
    projection = parameters["projection.weight"] if settings.recurrent_projection else None
    sizes = recurrent.shape[-2], settings.hidden_size
    state, cell = memory[0] if memory else (vectors.new_zeros(*inputs.shape[:-1], n) for n in sizes)
    outputs = []
    for step in projected.unbind(-2):
        state, cell = advance(activations, step, recurrent, (state, cell), projection)
        outputs.append(state)
    return torch.stack(outputs, -2), [(state, cell)]
