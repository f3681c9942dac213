"""States of a model's output layer while it writes texts of its own.

Layers of low rank are calibrated on them. They need no corpus, only the run, and of a private run
they are a function of what it released: epsilon covers them.
"""

import numpy as np
import torch
from torch import Tensor

from fedsi.data.protocol import BOS, OOV
from fedsi.errors import UserError
from fedsi.inference.reading import DIVERGED, TrainedModel
from fedsi.inference.top_k.layer import Array
from fedsi.seeds import Purpose, generator

TEXTS, LENGTH = 256, 16


def own_states(
    trained: TrainedModel, *, texts: int = TEXTS, length: int = LENGTH, seed: int = 0
) -> Array:
    """Let a model write texts and return the states it passes; a pure function of the arguments.

    Words are drawn from the model's distribution without ``pad``, ``bos`` and ``eos``, so all texts
    have the same length, at most that of the learned positions.

    Args:
        trained: The model.
        texts: Number of texts.
        length: Words of each.
        seed: The seed of all draws.

    Returns:
        float32 ``[texts * length, size]``.

    Raises:
        UserError: The model's predictions are not numbers.
    """
    model, parameters = trained.model, trained.parameters
    rng = generator(seed, Purpose.CALIBRATION)
    words = torch.full((texts, 1), BOS)
    memory: list[tuple[Tensor, ...]] = []
    states = []
    with torch.inference_mode():
        for _ in range(min(length, model.longest or length)):
            features, memory = model.continued(parameters, words, memory)
            inputs = model.output_inputs(parameters, features)
            if inputs is None:
                raise TypeError(f"{model.settings.architecture} has no output layer")
            states.append(inputs[:, -1])
            logits = model.logits(parameters, features[:, -1]).double()
            if not logits.isfinite().all():
                raise UserError(DIVERGED)
            logits[:, :OOV] = -torch.inf
            places = torch.from_numpy(rng.random((texts, 1)))
            line = logits.softmax(-1).cumsum(-1)
            words = torch.searchsorted(line, places * line[:, -1:]).clamp_max(line.shape[1] - 1)
    found: Array = torch.stack(states, 1).flatten(0, 1).numpy()
    return np.ascontiguousarray(found, np.float32)
