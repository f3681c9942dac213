"""A recurrent layer over a packed batch: its memory and the choice of compiled loops."""

from dataclasses import dataclass

from torch import Tensor

from fedsi.kernels.cpu.matrix_products import Products
from fedsi.kernels.cpu.packing import PackedBatch
from fedsi.kernels.cpu.recurrence import (
    cifg_backward,
    cifg_forward,
    si_cifg_backward,
    si_cifg_forward,
)
from fedsi.kernels.cpu.workspace import Workspace
from fedsi.models.recurrent import GATES


@dataclass(frozen=True)
class ForwardPass:
    """Results of a forward pass that the backward pass needs."""

    gates: Tensor
    """The gates f, o and g after their activations, side by side: ``[positions, 3 hidden]``."""
    cells: Tensor
    """c, ``[positions, hidden]``."""
    squashed: Tensor
    """tanh(c) or c / max |c|, ``[positions, hidden]``."""
    hidden: Tensor
    """h, ``[positions, hidden]``."""
    state: Tensor
    """The state that is fed back, ``[positions, state]``: h or its recurrent projection."""
    maxima: Tensor
    """SI-CIFG only: the divisors of f, o, g and c, ``[positions, 4]``."""


def run_forward(
    architecture: str,
    packed: PackedBatch,
    gates: Tensor,
    recurrent: Tensor,
    projection: Tensor | None,
    products: Products,
    space: Workspace,
) -> ForwardPass:
    """Run the recurrence.

    Args:
        architecture: ``cifg`` or ``si_cifg``.
        packed: The batch.
        gates: ``W x + b`` of every position, ``[positions, 3 hidden]``; overwritten.
        recurrent: U, ``[state, 3 hidden]``.
        projection: P, ``[hidden, state]``, or None without a recurrent projection.
        products: Matrix products in the precision of the step.
        space: Scratch memory.
    """
    shape = len(gates), gates.shape[1] // GATES
    hidden = space.take("hidden", *shape)
    trace = ForwardPass(
        gates=gates,
        cells=space.take("cells", *shape),
        squashed=space.take("squashed", *shape),
        hidden=hidden,
        state=hidden if projection is None else space.take("state", len(gates), len(recurrent)),
        maxima=space.take("maxima", len(gates), 4),
    )
    kernels = (
        products.panels(recurrent, space, "recurrent"),
        products.panels(_or_none(projection, gates), space, "projection"),
    )
    memory = trace.cells.numpy(), trace.squashed.numpy()
    states = trace.hidden.numpy(), trace.state.numpy()
    if architecture == "cifg":
        cifg_forward(packed.sizes, gates.numpy(), kernels, *memory, *states)
    else:
        si_cifg_forward(
            packed.sizes, gates.numpy(), kernels, *memory, *states, trace.maxima.numpy()
        )
    return trace


def run_backward(
    architecture: str,
    packed: PackedBatch,
    trace: ForwardPass,
    grad: Tensor,
    recurrent: Tensor,
    projection: Tensor | None,
    products: Products,
    space: Workspace,
) -> Tensor:
    """Return the gradient with respect to the gates before their activations.

    Args:
        architecture: ``cifg`` or ``si_cifg``.
        packed: The batch.
        trace: The forward pass.
        grad: Gradient with respect to the state, ``[positions, state]``: that of the layer above on
            entry, the total on return.
        recurrent: U, ``[state, 3 hidden]``.
        projection: P, ``[hidden, state]``, or None without a recurrent projection.
        products: Matrix products in the precision of the step.
        space: Scratch memory.

    Returns:
        ``[positions, 3 hidden]``.
    """
    result = space.take("grad_gates", *trace.gates.shape)
    grad_hidden = grad if projection is None else space.take("grad_hidden", *trace.hidden.shape)
    kernels = (
        products.rows(recurrent, space, "recurrent"),
        products.rows(_or_none(projection, grad), space, "projection"),
    )
    gates, cells, squashed = (t.numpy() for t in (trace.gates, trace.cells, trace.squashed))
    grads = grad.numpy(), grad_hidden.numpy()
    if architecture == "cifg":
        cifg_backward(packed.sizes, gates, kernels, cells, squashed, grads, result.numpy())
    else:
        maxima = trace.maxima.numpy()
        si_cifg_backward(
            packed.sizes, gates, kernels, cells, squashed, maxima, grads, result.numpy()
        )
    return result


def _or_none(projection: Tensor | None, like: Tensor) -> Tensor:
    """Return a projection, or an empty matrix in place of None."""
    return like.new_empty(0, 0) if projection is None else projection
