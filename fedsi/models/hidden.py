"""The last hidden layer of any model: what its output layer reads."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from fedsi.models.model import Model
from fedsi.models.user_model import UserModel


@contextmanager
def hidden_seen(model: Model) -> Iterator[list[Tensor]]:
    """Within this context, collect the inputs of the last dense layer of a custom model.

    The features of a custom model are its logits, and only its module knows its hidden layers. The
    last ``nn.Linear`` that a forward pass calls is its output layer, if there is one. The list
    holds that layer's inputs in the latest pass; it stays empty for other models, whose features
    are the last hidden layer.
    """
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = inputs[:1]

    dense = (
        [m for m in model.module.modules() if isinstance(m, nn.Linear)]
        if isinstance(model, UserModel)
        else []
    )
    handles = [module.register_forward_pre_hook(keep) for module in dense]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
