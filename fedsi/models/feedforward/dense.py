"""The dense feed-forward part, ``activation(x W_inner) W_outer``.

With ``model.activation=geglu`` it is ``(gelu(x W_gate) * (x W_inner)) W_outer`` (Shazeer, arXiv
2002.05202).
"""

from torch import Tensor
from torch.nn import functional

from fedsi.experiment import ModelSettings
from fedsi.models.feedforward.part import ACTIVATIONS, FeedForwardPart, Shapes
from fedsi.models.layers import dense
from fedsi.models.parameters import Parameters


def _shapes(settings: ModelSettings) -> Shapes:
    size, inner = settings.embedding_size, settings.feedforward_size
    gate = {"gate": (size, inner)} if settings.activation == "geglu" else {}
    return {**gate, "inner": (size, inner), "outer": (inner, size)}


def _run(settings: ModelSettings, parameters: Parameters, x: Tensor) -> Tensor:
    inner = dense(x, parameters["inner"])
    if settings.activation == "geglu":
        inner = inner * functional.gelu(dense(x, parameters["gate"]))
    else:
        inner = ACTIVATIONS[settings.activation](inner)
    return dense(inner, parameters["outer"])


PART = FeedForwardPart(shapes=_shapes, run=_run)
