"""Tiles of matrix products in explicit vectors, for compiled code.

A tile of the result stays in registers while the two factors stream by. Either numbers of one
factor are broadcast and multiplied with vectors of the other (``update_tile``), or both are read
along the axis that is summed (``inner_tile``). A row's result does not depend on how many rows
share its tile.

A factor of type uint32 holds pairs of bfloat16 numbers, neighbours on the axis that is summed; they
are multiplied and added in float32.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types

from fedsi.compiler import compiled
from fedsi.kernels.cpu.bits import FLOATS, intrinsic

_FEATURES = binding.get_host_cpu_features()
HAS_WIDE_VECTORS = bool(_FEATURES.get("avx512f"))
HAS_BFLOAT16 = HAS_WIDE_VECTORS and bool(_FEATURES.get("avx512bf16"))
"""Whether the processor multiplies pairs of bfloat16 numbers."""

_VECTOR_BITS = 512 if HAS_WIDE_VECTORS else 256
VECTOR_BYTES = _VECTOR_BITS // 8
COLUMNS = 2 * _VECTOR_BITS // 32
"""Columns of a tile of ``update_tile``."""
ROWS = 8 if HAS_WIDE_VECTORS else 4
"""Most rows of a tile of ``update_tile``."""
LINE_BYTES = 64
"""Bytes of a line of the cache."""
INNER_COLUMNS = 4 if HAS_WIDE_VECTORS else 2
INNER_ROWS = 6 if HAS_WIDE_VECTORS else 4

_Cases = dict[int, Callable[[], None]]
_INDEX = ir.IntType(64)


class _BFloat16(ir.Type):  # type: ignore[misc]  # llvmlite has no types
    """The type ``bfloat`` of LLVM, which llvmlite does not define."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


@compiled
def is_wide(columns: int) -> int:
    """Return 1 if more than half of the columns of a tile of ``update_tile`` matter, else 0."""
    return 1 if columns > COLUMNS // 2 else 0


@intrinsic
def update_tile(
    typing_context: Any,
    out: Any,
    rows: Any,
    panel: Any,
    number: Any,
    wide: Any,
    keep: Any,
    rate: Any,
) -> Any:
    """Set the first rows of a tile to ``keep * out + rate * rows @ panel``.

    Args:
        typing_context: The compiler's typing context.
        out: At least ``[number, COLUMNS]``, with contiguous rows.
        rows: At least ``[number, depth]``.
        panel: ``[depth, COLUMNS]``, contiguous.
        number: Number of rows, from 1 to ``ROWS``.
        wide: The result of ``is_wide`` for the columns that matter.
        keep: A factor of the type of ``out``; if 0, ``out`` may be uninitialised.
        rate: A factor of the type of ``out``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays, factors = _arrays(context, builder, signature, arguments, 3), arguments[5:]
        vector = _vector(out.dtype.bitwidth)
        whole = COLUMNS // vector.count
        cases: _Cases = {
            2 * r + w: partial(
                _update_tile, builder, vector, (r, whole if w else whole // 2), arrays, factors
            )
            for r, w in product(range(1, ROWS + 1), (0, 1))
        }
        _choose(builder, _case(builder, *arguments[3:5]), cases)
        return context.get_dummy_value()

    arguments = out, rows, panel, types.int64, types.int64, out.dtype, out.dtype
    return types.void(*arguments), generate


@intrinsic
def expect_rows(typing_context: Any, out: Any, number: Any) -> Any:
    """Begin to bring the first rows of a tile of ``update_tile`` into the cache.

    A tile is a narrow part of many long rows, which the processor does not foresee.

    Args:
        typing_context: The compiler's typing context.
        out: At least ``[number, COLUMNS]``, with contiguous rows.
        number: Number of rows.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (array,) = _arrays(context, builder, signature, arguments, 1)
        stride = _strides(builder, array)[0]
        with cgutils.for_range(builder, arguments[1]) as loop:
            row = _moved(builder, array.data, builder.mul(stride, loop.index))
            for first in range(0, COLUMNS, 8 * LINE_BYTES // out.dtype.bitwidth):
                _prefetch(builder, builder.gep(row, [_INDEX(first)]))
        return context.get_dummy_value()

    return types.void(out, types.int64), generate


@intrinsic
def inner_tile(
    typing_context: Any, out: Any, rows: Any, others: Any, number: Any, wide: Any
) -> Any:
    """Write a tile of ``rows @ others.T``.

    Args:
        typing_context: The compiler's typing context.
        out: ``[INNER_ROWS, INNER_COLUMNS]``.
        rows: At least ``[number, depth]``, with contiguous rows.
        others: At least ``[columns, depth]``, with contiguous rows.
        number: Number of rows, from 1 to ``INNER_ROWS``.
        wide: 1 for ``INNER_COLUMNS`` columns, 0 for a single one.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = _arrays(context, builder, signature, arguments, 3)
        width = out.dtype.bitwidth
        cases: _Cases = {
            2 * r + w: partial(_inner_tile, builder, width, r, INNER_COLUMNS if w else 1, *arrays)
            for r, w in product(range(1, INNER_ROWS + 1), (0, 1))
        }
        _choose(builder, _case(builder, *arguments[3:]), cases)
        return context.get_dummy_value()

    return types.void(out, rows, others, types.int64, types.int64), generate


@intrinsic
def cross_tile(typing_context: Any, out: Any, rows: Any) -> Any:
    """Write the transpose of a square tile whose side is ``VECTOR_BYTES``.

    Args:
        typing_context: The compiler's typing context.
        out: At least as many rows and columns as a vector has numbers, with contiguous rows.
        rows: The same, of the type of ``out``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source = _arrays(context, builder, signature, arguments, 2)
        count = 8 * VECTOR_BYTES // out.dtype.bitwidth
        vector = ir.VectorType(source.data.type.pointee, count)
        loaded = [_load(builder, row, 0, vector) for row in _rows_of(builder, source, count)]
        crossed = _transposed(builder, loaded)
        for row, value in zip(_rows_of(builder, target, count), crossed, strict=True):
            _store(builder, value, row, 0)
        return context.get_dummy_value()

    return types.void(out, rows), generate


def _arrays(context: Any, builder: Any, signature: Any, arguments: Any, count: int) -> list[Any]:
    return [
        context.make_array(kind)(context, builder, value)
        for kind, value in zip(signature.args[:count], arguments, strict=False)
    ]


def _choose(builder: Any, value: Any, cases: _Cases) -> None:
    """Run the generated code for one value."""
    end = builder.append_basic_block("chosen")
    switch = builder.switch(value, end)
    for number, generate in cases.items():
        block = builder.append_basic_block(f"case{number}")
        switch.add_case(value.type(number), block)
        builder.position_at_end(block)
        generate()
        builder.branch(end)
    builder.position_at_end(end)


def _case(builder: Any, number: Any, wide: Any) -> Any:
    return builder.add(builder.mul(number, number.type(2)), wide)


def _update_tile(
    builder: Any, vector: Any, shape: tuple[int, int], arrays: Sequence[Any], factors: Sequence[Any]
) -> None:
    (number, count), (out, rows, panel), (keep, rate) = shape, arrays, factors
    totals = [_zeros(builder, vector, count) for _ in range(number)]
    sources, factor_step = _rows_of(builder, rows, number), _strides(builder, rows)[1]
    with cgutils.for_range(builder, builder.extract_value(panel.shape, 0)) as loop:
        place = builder.gep(panel.data, [builder.mul(loop.index, _INDEX(COLUMNS))])
        columns = [_load(builder, place, c * vector.count, vector) for c in range(count)]
        offset = builder.mul(loop.index, factor_step)
        for source, sums in zip(sources, totals, strict=True):
            factor = _spread(builder, builder.load(_moved(builder, source, offset)), vector.count)
            for column, total in zip(columns, sums, strict=True):
                builder.store(_add(builder, factor, column, builder.load(total)), total)
    keeps, rates = (_spread(builder, x, vector.count) for x in (keep, rate))
    cleared = builder.fcmp_ordered("==", keep, keep.type(0.0))
    for target, sums in zip(_rows_of(builder, out, number), totals, strict=True):
        for c, total in enumerate(sums):
            old = _load(builder, target, c * vector.count, vector)
            kept = builder.select(cleared, vector(None), builder.fmul(old, keeps))
            new = builder.fadd(kept, builder.fmul(builder.load(total), rates), ("contract",))
            _store(builder, new, target, c * vector.count)


def _inner_tile(
    builder: Any, width: int, number: int, count: int, out: Any, rows: Any, others: Any
) -> None:
    vector = _vector(width)
    totals = [_zeros(builder, vector, count) for _ in range(number)]
    left, right = _rows_of(builder, rows, number), _rows_of(builder, others, count)
    depth = builder.extract_value(rows.shape, 1)
    whole = builder.sdiv(depth, _INDEX(vector.count))
    with cgutils.for_range(builder, whole) as loop:
        offset = builder.mul(loop.index, _INDEX(vector.count))
        _add_inner(builder, vector, totals, left, right, offset, None)
    offset = builder.mul(whole, _INDEX(vector.count))
    rest = builder.sub(depth, offset)
    with builder.if_then(builder.icmp_signed(">", rest, _INDEX(0))):
        lanes = ir.Constant(ir.VectorType(_INDEX, vector.count), list(range(vector.count)))
        mask = builder.icmp_signed("<", lanes, _spread(builder, rest, vector.count))
        _add_inner(builder, vector, totals, left, right, offset, mask)
    for target, sums in zip(_rows_of(builder, out, number), totals, strict=True):
        for c, total in enumerate(sums):
            builder.store(_sum(builder, builder.load(total)), builder.gep(target, [_INDEX(c)]))


def _add_inner(
    builder: Any, vector: Any, totals: Any, left: Any, right: Any, offset: Any, mask: Any
) -> None:
    """Add the products of one vector of each row."""
    columns = [_load(builder, builder.gep(p, [offset]), 0, vector, mask) for p in right]
    for source, sums in zip(left, totals, strict=True):
        row = _load(builder, builder.gep(source, [offset]), 0, vector, mask)
        for column, total in zip(columns, sums, strict=True):
            builder.store(_add(builder, row, column, builder.load(total)), total)


def _vector(width: int) -> Any:
    return ir.VectorType(FLOATS[width][1], _VECTOR_BITS // width)


def _zeros(builder: Any, vector: Any, count: int) -> list[Any]:
    places = [cgutils.alloca_once(builder, vector) for _ in range(count)]
    for place in places:
        builder.store(vector(None), place)
    return places


def _strides(builder: Any, array: Any) -> list[Any]:
    return list(cgutils.unpack_tuple(builder, array.strides, 2))


def _rows_of(builder: Any, array: Any, number: int) -> list[Any]:
    """Return pointers to an array's first rows."""
    stride = _strides(builder, array)[0]
    return [_moved(builder, array.data, builder.mul(stride, _INDEX(r))) for r in range(number)]


def _moved(builder: Any, pointer: Any, offset: Any) -> Any:
    """Return a pointer moved by a number of bytes."""
    place = builder.gep(builder.bitcast(pointer, ir.IntType(8).as_pointer()), [offset])
    return builder.bitcast(place, pointer.type)


def _load(builder: Any, pointer: Any, first: int, vector: Any, mask: Any = None) -> Any:
    """Load a vector; with a mask only the masked lanes, zeros elsewhere."""
    kind = ir.VectorType(pointer.type.pointee, vector.count)
    place = builder.bitcast(builder.gep(pointer, [_INDEX(first)]), kind.as_pointer())
    if mask is None:
        return builder.load(place, align=4)
    prefix = "i" if isinstance(kind.element, ir.IntType) else "f"
    width = 64 if isinstance(kind.element, ir.DoubleType) else 32
    signature = ir.FunctionType(kind, [place.type, ir.IntType(32), mask.type, kind])
    name = f"llvm.masked.load.v{kind.count}{prefix}{width}.p0"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    return builder.call(function, [place, ir.IntType(32)(4), mask, kind(None)])


def _store(builder: Any, value: Any, pointer: Any, first: int) -> None:
    place = builder.gep(pointer, [_INDEX(first)])
    builder.store(value, builder.bitcast(place, value.type.as_pointer()), align=4)


def _prefetch(builder: Any, pointer: Any) -> None:
    """Begin to bring memory that will be written into the cache; no address is an error."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    to_write, keep, data = number(1), number(3), number(1)
    builder.call(function, [builder.bitcast(pointer, byte), to_write, keep, data])


def _spread(builder: Any, value: Any, count: int) -> Any:
    """Return a vector filled with one number."""
    vector = ir.VectorType(value.type, count)
    undefined = ir.Constant(vector, ir.Undefined)
    single = builder.insert_element(undefined, value, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), count), None)
    return builder.shuffle_vector(single, undefined, mask)


def _add(builder: Any, left: Any, right: Any, total: Any) -> Any:
    """Return ``left * right + total``; for pairs, both products are added."""
    if isinstance(left.type.element, ir.IntType):
        halves = ir.VectorType(_BFloat16(), 2 * left.type.count)
        factors = [builder.bitcast(factor, halves) for factor in (left, right)]
        signature = ir.FunctionType(total.type, [total.type, halves, halves])
        name = f"llvm.x86.avx512bf16.dpbf16ps.{_VECTOR_BITS}"
        function = cgutils.get_or_insert_function(builder.module, signature, name)
        return builder.call(function, [total, *factors])
    return builder.fadd(builder.fmul(left, right, ("contract",)), total, ("contract",))


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Return the transpose: for each bit, that bit of the row and of the column are swapped."""
    count, bit = len(rows), 1
    while bit < count:
        for low in (r for r in range(count) if not r & bit):
            pair = rows[low], rows[low | bit]
            # Numbers of the second vector count from the length of the first.
            lower = [c if not c & bit else count + (c ^ bit) for c in range(count)]
            upper = [c | bit if not c & bit else count + c for c in range(count)]
            rows[low], rows[low | bit] = (
                builder.shuffle_vector(
                    *pair, ir.Constant(ir.VectorType(ir.IntType(32), count), places)
                )
                for places in (lower, upper)
            )
        bit *= 2
    return rows


def _sum(builder: Any, vector: Any) -> Any:
    """Return the sum of a vector by repeatedly adding its halves."""
    count = vector.type.count
    while count > 1:
        count //= 2
        halves = [
            ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(a, a + count)))
            for a in (0, count)
        ]
        undefined = ir.Constant(vector.type, ir.Undefined)
        low, high = (builder.shuffle_vector(vector, undefined, half) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, ir.IntType(32)(0))
