"""The inventory of a model, by which a server and its nodes compare models built by each."""

import hashlib
from dataclasses import dataclass

from fedsi.models.model import Model


@dataclass(frozen=True)
class Inventory:
    """A model's parameters; of the trained ones only shapes, because their values are sent.

    Args:
        trained: Shapes of the trained parameters by name, in their order in the flat vector.
        frozen: SHA-256 of the other parameters' shapes and values, by name.
    """

    trained: dict[str, tuple[int, ...]]
    frozen: dict[str, str]


def inventory(model: Model) -> Inventory:
    """Return the inventory of a model."""
    frozen = {}
    for name, value in model.frozen.items():
        content = value.contiguous().numpy().tobytes()
        frozen[name] = hashlib.sha256(f"{tuple(value.shape)}".encode() + content).hexdigest()
    return Inventory(dict(model.layout.shapes), frozen)


def difference(here: Inventory, there: Inventory) -> str | None:
    """Return how another process's model differs from this process's, or None.

    Args:
        here: The model of this process.
        there: The model of the other process.
    """
    for name in dict.fromkeys((*here.trained, *here.frozen, *there.trained, *there.frozen)):
        ours, others = _what(here, name), _what(there, name)
        if ours != others:
            return f"{name} is {others} there and {ours} here"
        if here.frozen.get(name) != there.frozen.get(name):
            return f"{name}, which is not trained, has other values there"
    same_order = list(here.trained) == list(there.trained)
    return None if same_order else "its parameters are in another order there"


def _what(of: Inventory, name: str) -> str:
    if name in of.trained:
        return f"trained with the shape {list(of.trained[name])}"
    return "not trained" if name in of.frozen else "absent"
