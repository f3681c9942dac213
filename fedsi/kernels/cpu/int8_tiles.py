"""Sums of products of 8-bit integers in explicit vectors, for compiled code.

Sixteen rows lie side by side: a step reads four neighbouring numbers of each row, 64 bytes, and
multiplies them with the same four numbers of the state. Processors with VNNI have one instruction
for that. Elsewhere the four bytes are taken apart with shifts, in vectors of any width. Integers
are exact, so both give the same sums.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types

from fedsi.kernels.cpu.bits import intrinsic

LANES = 16
"""Rows side by side in a panel."""
GROUP = 4
"""Neighbouring numbers of a row that a step multiplies."""

_FEATURES = binding.get_host_cpu_features()
HAS_VNNI = bool(_FEATURES.get("avx512f")) and bool(_FEATURES.get("avx512vnni"))
"""Whether the processor adds four products of bytes in one instruction."""

_INDEX, _INTEGER = ir.IntType(64), ir.IntType(32)
_SUMS = ir.VectorType(_INTEGER, LANES)
_UNROLLED = 4
"""Steps with sums of their own, so that none waits for the one before."""

_AddProducts = Callable[[Any, Any, Any, Any], Any]


def _by_one_instruction(builder: Any, sums: Any, numbers: Any, state: Any) -> Any:
    signature = ir.FunctionType(_SUMS, [_SUMS, _SUMS, _SUMS])
    name = "llvm.x86.avx512.vpdpbusd.512"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, [sums, state, numbers])


def _by_shifts(builder: Any, sums: Any, numbers: Any, state: Any) -> Any:
    for place in range(0, 32, 8):
        left = ir.Constant(_SUMS, [24 - place] * LANES)
        right = ir.Constant(_SUMS, [24] * LANES)
        number = builder.ashr(builder.shl(numbers, left), right)
        factor = builder.lshr(builder.shl(state, left), right)
        sums = builder.add(sums, builder.mul(number, factor))
    return sums


def _generated(add_products: _AddProducts) -> Callable[..., Any]:
    def panel_products(
        typing_context: Any,  # noqa: ARG001 - given to every intrinsic
        high_out: Any,
        low_out: Any,
        panels: Any,
        high: Any,
        low: Any,
    ) -> Any:
        """Write the products of some panels with both halves of a state.

        Args:
            typing_context: The compiler's typing context.
            high_out: int32 ``[panels, LANES]`` or larger, contiguous.
            low_out: The same.
            panels: int32 ``[panels, steps, LANES]``, contiguous; each holds four signed bytes.
            high: int32 ``[steps]``, four unsigned bytes each.
            low: The same.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip(signature.args, arguments, strict=True)
            ]
            _all_panels(builder, add_products, *arrays)
            return context.get_dummy_value()

        return types.void(high_out, low_out, panels, high, low), generate

    return intrinsic(panel_products)


def _all_panels(
    builder: Any, add: _AddProducts, high_out: Any, low_out: Any, panels: Any, *states: Any
) -> None:
    number, steps, _ = cgutils.unpack_tuple(builder, panels.shape, 3)
    places = [[cgutils.alloca_once(builder, _SUMS) for _ in range(_UNROLLED)] for _ in states]
    with cgutils.for_range(builder, number) as loop:
        start = builder.mul(loop.index, builder.mul(steps, _INDEX(LANES)))
        _panel(builder, add, builder.gep(panels.data, [start]), steps, states, places)
        at = builder.mul(loop.index, _INDEX(LANES))
        for out, row in zip((high_out, low_out), places, strict=True):
            total = builder.load(row[0])
            for place in row[1:]:
                total = builder.add(total, builder.load(place))
            target = builder.bitcast(builder.gep(out.data, [at]), _SUMS.as_pointer())
            builder.store(total, target, align=4)


def _panel(
    builder: Any, add: _AddProducts, panel: Any, steps: Any, states: Any, places: Any
) -> None:
    """Add up the products of one panel with each state."""
    for place in (p for row in places for p in row):
        builder.store(_SUMS(None), place)

    def step(at: Any, which: int) -> None:
        source = builder.gep(panel, [builder.mul(at, _INDEX(LANES))])
        numbers = builder.load(builder.bitcast(source, _SUMS.as_pointer()), align=4)
        for state, row in zip(states, places, strict=True):
            factor = _spread_lanes(builder, builder.load(builder.gep(state.data, [at])))
            builder.store(add(builder, builder.load(row[which]), numbers, factor), row[which])

    whole = builder.sdiv(steps, _INDEX(_UNROLLED))
    with cgutils.for_range(builder, whole) as loop:
        first = builder.mul(loop.index, _INDEX(_UNROLLED))
        for which in range(_UNROLLED):
            step(builder.add(first, _INDEX(which)), which)
    done = builder.mul(whole, _INDEX(_UNROLLED))
    with cgutils.for_range(builder, builder.sub(steps, done)) as loop:
        step(builder.add(done, loop.index), 0)


def _spread_lanes(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_SUMS, ir.Undefined)
    single = builder.insert_element(undefined, value, _INTEGER(0))
    return builder.shuffle_vector(single, undefined, ir.Constant(_SUMS, None))


portable_panel_products = _generated(_by_shifts)
fast_panel_products = _generated(_by_one_instruction) if HAS_VNNI else portable_panel_products
