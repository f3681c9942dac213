"""Floating-point numbers by their bits, for compiled code.

The largest of many floats cannot be found with vector instructions unless the compiler may forget
that some may be not a number; the largest of many integers can, and floats have an order of bits.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import extending, types

_Generator = Callable[[Any, Any], tuple[Any, Callable[[Any, Any, Any, Any], Any]]]
_intrinsic = cast("Callable[[_Generator], Callable[[Any], Any]]", extending.intrinsic)

_FLOATS = {32: (types.float32, ir.FloatType()), 64: (types.float64, ir.DoubleType())}
_INTEGERS = {32: types.int32, 64: types.int64}


@_intrinsic
def to_ordered(typing_context: Any, number: Any) -> Any:
    """Return an integer; larger numbers have larger integers, a positive NaN the largest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], ir.IntType(number.bitwidth))
        return _flip_negative(builder, bits)

    result: Any = _INTEGERS[number.bitwidth]
    return result(number), generate


@_intrinsic
def from_ordered(typing_context: Any, ordered: Any) -> Any:
    """Return the float that ``to_ordered`` made an integer of."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(_flip_negative(builder, arguments[0]), kind)

    result: Any
    result, kind = _FLOATS[ordered.bitwidth]
    return result(ordered), generate


@_intrinsic
def power_of_two(typing_context: Any, exponent: Any) -> Any:
    """Return ``2^n`` as float32 for an int32 n from -126 to 127, which is its exponent field."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(arguments[0], arguments[0].type(127))
        return builder.bitcast(builder.shl(biased, biased.type(23)), ir.FloatType())

    result: Any = types.float32
    return result(exponent), generate


def _flip_negative(builder: Any, bits: Any) -> Any:
    """Flip all bits but the sign of negative numbers, which is its own inverse."""
    width = bits.type.width
    negative = builder.ashr(bits, bits.type(width - 1))
    return builder.xor(bits, builder.and_(negative, bits.type(2 ** (width - 1) - 1)))
