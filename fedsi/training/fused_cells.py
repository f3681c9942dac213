"""The two cells' recurrence and its gradient by hand, over a packed batch.

What autograd would do step by step is done once for all steps wherever it does not depend on the
next step: every factor that is known after the forward pass is computed in one sweep, so that a
step backwards is a handful of products, and the gradient of the recurrent kernel is one matrix
product. ``fedsi.models.cells`` has the equations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fedsi.models.cells import GATES, SMALLEST_MAXIMUM
from fedsi.training.packing import PackedBatch
from fedsi.training.workspace import Workspace


@dataclass(frozen=True)
class Trace:
    """What a forward pass leaves for the backward pass; all ``[positions, ...]``."""

    gates: Tensor
    """After their activations, f, o and g side by side: ``[positions, 3 hidden]``."""
    cells: Tensor
    squashed: Tensor
    """``squash(c)``."""
    hidden: Tensor
    """``o * squash(c)``."""
    gate_maxima: Tensor
    """SI-CIFG only: what each gate was divided by, ``[positions, 3, 1]``."""
    cell_maxima: Tensor
    """SI-CIFG only: what each cell was divided by, ``[positions, 1]``."""


class FusedCell(Protocol):
    """One of the two cells."""

    def forward(
        self, packed: PackedBatch, gates: Tensor, recurrent: Tensor, space: Workspace
    ) -> Trace:
        """Run the recurrence.

        Args:
            packed: The batch.
            gates: ``W x + b`` of every position, overwritten: ``[positions, 3 hidden]``.
            recurrent: U, ``[hidden, 3 hidden]``.
            space: Scratch memory.
        """
        ...

    def backward(
        self, packed: PackedBatch, trace: Trace, grad: Tensor, recurrent: Tensor, space: Workspace
    ) -> Tensor:
        """Return the gradient with respect to the gates before their activations.

        Args:
            packed: The batch.
            trace: Of the forward pass.
            grad: With respect to the hidden states, overwritten: ``[positions, hidden]``.
            recurrent: U, ``[hidden, 3 hidden]``.
            space: Scratch memory.

        Returns:
            ``[positions, 3 hidden]``.
        """
        ...


class FusedCifg:
    """Sigmoid gates, tanh."""

    def forward(
        self, packed: PackedBatch, gates: Tensor, recurrent: Tensor, space: Workspace
    ) -> Trace:
        """Run the recurrence."""
        trace = _new_trace(gates, len(recurrent), space)
        f, o, g = gates.split(len(recurrent), dim=1)
        both = gates[:, : 2 * len(recurrent)]
        h = c = space.zeros("zero", packed.sizes[0], len(recurrent))
        columns = (gates, f, o, g, both, trace.cells, trace.squashed, trace.hidden)
        for t, (n, z, f_t, o_t, g_t, both_t, c_t, s_t, h_t) in enumerate(_steps(packed, columns)):
            if t:
                z.addmm_(_head(h, n), recurrent)
            both_t.sigmoid_()
            g_t.tanh_()
            c = torch.lerp(g_t, _head(c, n), f_t, out=c_t)
            h = torch.mul(o_t, torch.tanh(c, out=s_t), out=h_t)
        return trace

    def backward(
        self, packed: PackedBatch, trace: Trace, grad: Tensor, recurrent: Tensor, space: Workspace
    ) -> Tensor:
        """Return the gradient with respect to the gates before their activations."""
        size = grad.shape[1]
        factors = _cifg_factors(packed, trace, space)
        result = space.take("grad_gates", *trace.gates.shape)
        grad_c = space.zeros("grad_c", packed.sizes[0], size)
        forget = trace.gates[:, :size]
        columns = (grad, forget, *factors, result, *result.split(size, dim=1))
        upward = grad[:0]
        for n, dh, f, via_c, via_f, via_o, via_g, dz, df, do, dg in _steps(packed, columns)[::-1]:
            if len(upward):
                dh[: len(upward)].addmm_(upward, recurrent.t())
            dc = _head(grad_c, n)
            dc.addcmul_(dh, via_c)
            torch.mul(dh, via_o, out=do)
            torch.mul(dc, via_f, out=df)
            torch.mul(dc, via_g, out=dg)
            dc.mul_(f)
            upward = dz
        return result


def _cifg_factors(
    packed: PackedBatch, trace: Trace, space: Workspace
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what turns gradients of h and c into those of c and of the gates f, o, g.

    These are o (1 - s^2), (c_before - g) f (1 - f), s o (1 - o) and (1 - f) (1 - g^2).
    """
    size = trace.hidden.shape[1]
    f, o, g = trace.gates.split(size, dim=1)
    to_c, to_f, to_o, to_g = space.take("factors", 4, *trace.hidden.shape).unbind()
    torch.addcmul(o, trace.hidden, trace.squashed, value=-1, out=to_c)
    _minus_candidate(packed, trace.cells, g, out=to_f)
    to_f.mul_(f).addcmul_(to_f, f, value=-1)
    torch.addcmul(trace.hidden, trace.hidden, o, value=-1, out=to_o)
    torch.sub(1.0, f, out=to_g)
    to_g.addcmul_(to_g, g * g, value=-1)
    return to_c, to_f, to_o, to_g


class FusedSiCifg:
    """Max-normalised ReLU gates, max-normalised identity.

    The gradient through ``y = x / m`` with ``m = max |x|`` is ``(dy - t (dy . y)) / m``, where t is
    the sign of y at its maximum and 0 elsewhere; dividing the largest by itself gives exactly 1,
    so t is y with its fraction cut off. Maxima that tie, as a kept cell and a new candidate of 1
    often do, share the gradient, as they do under autograd.
    """

    def forward(
        self, packed: PackedBatch, gates: Tensor, recurrent: Tensor, space: Workspace
    ) -> Trace:
        """Run the recurrence."""
        positions, size = len(gates), len(recurrent)
        trace = _new_trace(gates, size, space)
        f, _, g = gates.split(size, dim=1)
        three = gates.view(positions, GATES, size)
        h = c = space.zeros("zero", packed.sizes[0], size)
        columns = (gates, f, g, gates[:, : 2 * size], three, trace.gate_maxima)
        states = (gates[:, size : 2 * size], trace.cells, trace.cell_maxima, trace.squashed)
        steps = _steps(packed, (*columns, *states, trace.hidden))
        scratch = space.take("magnitudes", packed.sizes[0], GATES, size)
        small = space.take("magnitude", packed.sizes[0], size)
        for t, (n, z, f_t, g_t, both, three_t, m, o_t, c_t, m_c, s_t, h_t) in enumerate(steps):
            if t:
                z.addmm_(_head(h, n), recurrent)
            both.relu_()
            _maximum(three_t, _head(scratch, n), out=m)
            three_t.div_(m)
            c = torch.lerp(g_t, _head(c, n), f_t, out=c_t)
            _maximum(c, _head(small, n), out=m_c)
            h = torch.mul(o_t, torch.div(c, m_c, out=s_t), out=h_t)
        return trace

    def backward(
        self, packed: PackedBatch, trace: Trace, grad: Tensor, recurrent: Tensor, space: Workspace
    ) -> Tensor:
        """Return the gradient with respect to the gates before their activations."""
        positions, size = grad.shape
        gates = trace.gates.view(positions, GATES, size)
        to_c, to_gates = _si_cifg_factors(packed, trace, space)
        peaks = _peaks(gates, space.take("peaks", *gates.shape))
        peaks_s = _peaks(trace.squashed, space.take("peaks_s", *grad.shape))
        result = space.take("grad_gates", *gates.shape)
        grad_c = space.zeros("grad_c", packed.sizes[0], size)
        scratch = space.take("magnitudes", packed.sizes[0], GATES, size)
        small = space.take("magnitude", packed.sizes[0], size)
        columns = (grad, gates[:, 0], to_c, trace.squashed, peaks_s, to_gates, gates, peaks, result)
        upward = grad[:0]
        for n, dh, f, via_c, s, peak_s, via, y, peak, dz in _steps(packed, columns)[::-1]:
            if len(upward):
                dh[: len(upward)].addmm_(upward.flatten(1), recurrent.t())
            dc, ds = _head(grad_c, n), torch.mul(dh, via_c, out=_head(small, n))
            dc.add_(ds).addcmul_(peak_s, ds.mul_(s).sum(-1, keepdim=True), value=-1)
            torch.mul(dh, via[:, 1], out=dz[:, 1])
            torch.mul(dc.unsqueeze(1), via[:, ::2], out=dz[:, ::2])
            dots = torch.mul(dz, y, out=_head(scratch, n)).sum(-1, keepdim=True)
            dz.addcmul_(peak, dots, value=-1)
            dc.mul_(f)
            upward = dz
        return result.flatten(1)


def _si_cifg_factors(packed: PackedBatch, trace: Trace, space: Workspace) -> tuple[Tensor, Tensor]:
    """Return what turns gradients of h and c into those of c and of the gates, but for the maxima.

    These are o / m_c, and (c_before - g, s, 1 - f) / m, zero where a ReLU was.
    """
    positions, size = trace.hidden.shape
    gates = trace.gates.view(positions, GATES, size)
    f, o, g = gates.unbind(1)
    to_c = torch.div(o, trace.cell_maxima, out=space.take("to_c", positions, size))
    to_gates = space.take("factors", positions, GATES, size)
    _minus_candidate(packed, trace.cells, g, out=to_gates[:, 0])
    to_gates[:, 1] = trace.squashed
    torch.sub(1.0, f, out=to_gates[:, 2])
    to_gates.div_(trace.gate_maxima)
    to_gates[:, :2].mul_(gates[:, :2].sign())
    return to_c, to_gates


FUSED_CELLS: dict[str, FusedCell] = {"cifg": FusedCifg(), "si_cifg": FusedSiCifg()}


def _new_trace(gates: Tensor, size: int, space: Workspace) -> Trace:
    positions = len(gates)
    return Trace(
        gates=gates,
        cells=space.take("cells", positions, size),
        squashed=space.take("squashed", positions, size),
        hidden=space.take("hidden", positions, size),
        gate_maxima=space.take("gate_maxima", positions, GATES, 1),
        cell_maxima=space.take("cell_maxima", positions, 1),
    )


def _steps(packed: PackedBatch, columns: Sequence[Tensor]) -> list[tuple[Any, ...]]:
    """Cut columns of all positions into (sequences, piece of each column) for each time step.

    One call for a column costs a tenth of one for each of its pieces.
    """
    return list(zip(packed.sizes, *(column.split(packed.sizes) for column in columns), strict=True))


def _maximum(values: Tensor, scratch: Tensor, out: Tensor) -> None:
    """Write the largest magnitude along the last axis, clamped from below."""
    torch.amax(torch.abs(values, out=scratch), -1, keepdim=True, out=out)
    out.clamp_(min=SMALLEST_MAXIMUM)


def _peaks(normalised: Tensor, out: Tensor) -> Tensor:
    """Write the signs of the largest entries, divided by how many there are; 0 elsewhere."""
    torch.trunc(normalised, out=out)
    # A row of zeros has none.
    return out.div_(out.abs().sum(-1, keepdim=True).clamp_(min=1.0))


def _head(rows: Tensor, n: int) -> Tensor:
    return rows if len(rows) == n else rows[:n]


def _minus_candidate(packed: PackedBatch, cells: Tensor, candidate: Tensor, out: Tensor) -> None:
    """Write each position's cell of the time step before, zero at first, minus its candidate."""
    torch.neg(candidate, out=out)
    out[packed.sizes[0] :].add_(cells.index_select(0, packed.before))
