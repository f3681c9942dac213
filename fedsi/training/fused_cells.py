"""A recurrent layer over a packed batch: its memory, and which compiled loops fill it."""

from dataclasses import dataclass

from torch import Tensor

from fedsi.training.packing import PackedBatch
from fedsi.training.products import Products
from fedsi.training.recurrence import (
    cifg_backward,
    cifg_forward,
    si_cifg_backward,
    si_cifg_forward,
)
from fedsi.training.workspace import Workspace


@dataclass(frozen=True)
class Trace:
    """What a forward pass leaves for the backward pass."""

    gates: Tensor
    """After their activations, f, o and g side by side: ``[positions, 3 hidden]``."""
    cells: Tensor
    """c, ``[positions, hidden]``."""
    squashed: Tensor
    """tanh(c) or c / max |c|, ``[positions, hidden]``."""
    hidden: Tensor
    """h, ``[positions, hidden]``."""
    maxima: Tensor
    """SI-CIFG only: what f, o, g and c were divided by, ``[positions, 4]``."""


def run_forward(
    architecture: str,
    packed: PackedBatch,
    gates: Tensor,
    recurrent: Tensor,
    products: Products,
    space: Workspace,
) -> Trace:
    """Run the recurrence.

    Args:
        architecture: ``cifg`` or ``si_cifg``.
        packed: The batch.
        gates: ``W x + b`` of every position, overwritten: ``[positions, 3 hidden]``.
        recurrent: U, ``[hidden, 3 hidden]``.
        products: In the precision of the step.
        space: Scratch memory.
    """
    shape = len(gates), len(recurrent)
    trace = Trace(
        gates=gates,
        cells=space.take("cells", *shape),
        squashed=space.take("squashed", *shape),
        hidden=space.take("hidden", *shape),
        maxima=space.take("maxima", len(gates), 4),
    )
    kernel = products.panels(recurrent, space)
    states = trace.cells.numpy(), trace.squashed.numpy(), trace.hidden.numpy()
    if architecture == "cifg":
        cifg_forward(packed.sizes, gates.numpy(), kernel, *states)
    else:
        si_cifg_forward(packed.sizes, gates.numpy(), kernel, *states, trace.maxima.numpy())
    return trace


def run_backward(
    architecture: str,
    packed: PackedBatch,
    trace: Trace,
    grad: Tensor,
    recurrent: Tensor,
    products: Products,
    space: Workspace,
) -> Tensor:
    """Return the gradient with respect to the gates before their activations.

    Args:
        architecture: ``cifg`` or ``si_cifg``.
        packed: The batch.
        trace: Of the forward pass.
        grad: With respect to the hidden states, overwritten: ``[positions, hidden]``.
        recurrent: U, ``[hidden, 3 hidden]``.
        products: In the precision of the step.
        space: Scratch memory.

    Returns:
        ``[positions, 3 hidden]``.
    """
    result = space.take("grad_gates", *trace.gates.shape)
    gates, cells, squashed = (
        tensor.numpy() for tensor in (trace.gates, trace.cells, trace.squashed)
    )
    kernel = products.rows(recurrent, space)
    grads = grad.numpy(), result.numpy()
    if architecture == "cifg":
        cifg_backward(packed.sizes, gates, kernel, cells, squashed, *grads)
    else:
        maxima = trace.maxima.numpy()
        si_cifg_backward(packed.sizes, gates, kernel, cells, squashed, maxima, *grads)
    return result
