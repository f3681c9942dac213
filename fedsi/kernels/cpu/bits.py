"""Operations on the bits of floating-point numbers, for compiled code.

The compiler vectorises the maximum of many integers but, unless it may ignore NaN, not that of many
floats. Floats can be mapped to integers that have the same order.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import extending, types
from numba.core import imputils

Generator = Callable[..., tuple[Any, Callable[[Any, Any, Any, Any], Any]]]
intrinsic = cast("Callable[[Generator], Callable[..., Any]]", extending.intrinsic)

FLOATS = {32: (types.float32, ir.FloatType()), 64: (types.float64, ir.DoubleType())}
_INTEGERS = {32: types.int32, 64: types.int64}


@intrinsic
def to_ordered(typing_context: Any, number: Any) -> Any:
    """Return an integer with the order of the number; a positive NaN has the largest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(number.bitwidth))
        return _flip_negative(builder, bits)

    result: Any = _INTEGERS[number.bitwidth]
    return result(number), generate


@intrinsic
def from_ordered(typing_context: Any, ordered: Any) -> Any:
    """Return the float of an integer from ``to_ordered``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(_flip_negative(builder, arguments[0]), kind)

    result: Any
    result, kind = FLOATS[ordered.bitwidth]
    return result(ordered), generate


@intrinsic
def power_of_two(typing_context: Any, exponent: Any) -> Any:
    """Return ``2^n`` as float32 for an int32 n from -126 to 127, by setting the exponent field."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(arguments[0], arguments[0].type(127))
        return builder.bitcast(builder.shl(biased, biased.type(23)), ir.FloatType())

    result: Any = types.float32
    return result(exponent), generate


@intrinsic
def without_gaps(typing_context: Any, row: Any) -> Any:
    """Return the same row, declared contiguous to the compiler; the caller must ensure it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return imputils.impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

    result: Any = row.copy(layout="C")
    return result(row), generate


@intrinsic
def pair(typing_context: Any, first: Any, second: Any) -> Any:
    """Return two float32 numbers, rounded to bfloat16, side by side in a uint32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        low, high = (_rounded(builder, number) for number in arguments)
        return builder.or_(builder.lshr(low, low.type(16)), high)

    result: Any = types.uint32
    return result(first, second), generate


def _rounded(builder: Any, number: Any) -> Any:
    """Return the bits of a float32 number with its lower half rounded away, ties to even."""
    bits = builder.bitcast(number, ir.IntType(32))
    odd = builder.and_(builder.lshr(bits, bits.type(16)), bits.type(1))
    rounded = builder.add(bits, builder.add(odd, bits.type(0x7FFF)))
    # Rounding a NaN with a large payload would carry into its sign.
    kept = builder.select(builder.fcmp_unordered("uno", number, number), bits, rounded)
    return builder.and_(kept, bits.type(0xFFFF0000))


def _flip_negative(builder: Any, bits: Any) -> Any:
    """Flip all bits but the sign of negative numbers. It is its own inverse."""
    width = bits.type.width
    negative = builder.ashr(bits, bits.type(width - 1))
    return builder.xor(bits, builder.and_(negative, bits.type(2 ** (width - 1) - 1)))
