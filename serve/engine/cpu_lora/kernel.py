"""The product of one module in one call: for each row, `y += scale * (x @ A.T) @ B` of the row's slot.

bfloat16 in and out, float32 between; compiled by numba, which vLLM brings. A tile is up to `TILE` rows of
one slot: they share every load of that slot's weights. Threads take tiles. A vector is 16 numbers, which
LLVM splits where registers are smaller. Addresses and sizes come as integers, because building array
arguments costs more than the product of one row.

Layout, all int64 (see `packing` and `grouping`, which fill it):
    plan   [tiles, tiles x (slot, first place, rows), rows in the order of slots]
    table  [slices, inputs, slots x slices x (A, B, rank), slices x (first column, columns)]
where A is (rank, inputs) and B (rank, columns), both bfloat16, contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only
from llvmlite import ir
from numba import carray, njit, prange, types  # the cache's key is this file alone: keep all here
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np.ufunc import parallel

from serve.engine.cpu_lora.grouping import TILE, Integers

VECTOR = 16
RANKS = 4
"""Ranks are packed in multiples of this."""

THREADS = torch.get_num_threads()
# NOTE: numba counts the cores of this thread, which vLLM has bound to one of them, and would then set
# the OpenMP that it shares with torch to that number; its other layers would bring threads of their own.
config.NUMBA_NUM_THREADS = parallel.NUM_THREADS = THREADS
config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

_WIDE = 4 * VECTOR
_I16 = ir.VectorType(ir.IntType(16), VECTOR)
_I32 = ir.VectorType(ir.IntType(32), VECTOR)
_F32 = ir.VectorType(ir.FloatType(), VECTOR)
_INT = ir.IntType(64)


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, address: Any, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _at(builder: Any, base: Any, index: Any, size: int) -> Any:
    return builder.add(base, builder.mul(index, ir.Constant(_INT, size)))


def _splat(value: int) -> Any:
    return ir.Constant(_I32, [value] * VECTOR)


def _widen(builder: Any, address: Any) -> Any:
    """Load 16 bfloat16 as float32: their bits are the upper half."""
    bits = builder.zext(_load(builder, address, _I16, 2), _I32)
    return builder.bitcast(builder.shl(bits, _splat(16)), _F32)


def _narrow(builder: Any, value: Any) -> Any:
    """Round float32 to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = builder.bitcast(value, _I32)
    odd = builder.and_(builder.lshr(bits, _splat(16)), _splat(1))
    rounded = builder.add(builder.add(bits, odd), _splat(0x7FFF))
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), _splat(0x7FC00000), rounded)
    return builder.trunc(builder.lshr(rounded, _splat(16)), _I16)


def _fma(builder: Any, a: Any, b: Any, accumulator: Any) -> None:
    product = builder.fmul(a, b, flags=("contract",))
    builder.store(builder.fadd(product, builder.load(accumulator), flags=("contract",)), accumulator)


def _accumulators(builder: Any, count: int) -> list[Any]:
    places = [cgutils.alloca_once(builder, _F32) for _ in range(count)]
    for place in places:
        builder.store(ir.Constant(_F32, [0.0] * VECTOR), place)
    return places


def _spread(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_F32, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(_I32, [0] * VECTOR))


def _sum(builder: Any, vector: Any) -> Any:
    """Return the sum of the lanes, halves first."""
    size = VECTOR
    while size > 1:
        size //= 2
        order = [(lane + size) % VECTOR for lane in range(VECTOR)]
        vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, ir.Constant(_I32, order)))
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


def _shrink(rows: int) -> Callable[..., None]:
    """Return a function (x float32, inputs, A bfloat16, inner, width): `rows` x `RANKS` dot products."""

    @intrinsic
    def shrink(_context: Any, x: Any, inputs: Any, a: Any, inner: Any, width: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            x, inputs, a, inner, width = arguments
            sums = _accumulators(builder, rows * RANKS)
            steps = builder.udiv(inputs, ir.Constant(_INT, VECTOR))
            with cgutils.for_range(builder, steps) as loop:
                place = builder.mul(loop.index, ir.Constant(_INT, VECTOR))
                weights = [
                    _widen(builder, _at(builder, a, _offset(builder, rank, inputs, place), 2))
                    for rank in range(RANKS)
                ]
                for row in range(rows):
                    values = _load(builder, _at(builder, x, _offset(builder, row, inputs, place), 4), _F32, 4)
                    for rank in range(RANKS):
                        _fma(builder, weights[rank], values, sums[row * RANKS + rank])
            for row in range(rows):
                for rank in range(RANKS):
                    total = _sum(builder, builder.load(sums[row * RANKS + rank]))
                    target = _offset(builder, row, width, ir.Constant(_INT, rank))
                    _store(builder, total, _at(builder, inner, target, 4), 4)
            return _context.get_dummy_value()

        return types.void(x, inputs, a, inner, width), generate

    return shrink  # type: ignore[no-any-return]


def _offset(builder: Any, row: int, width: Any, place: Any) -> Any:
    return builder.add(builder.mul(ir.Constant(_INT, row), width), place)


def _expand(rows: int, vectors: int) -> Callable[..., None]:
    """Return a function (inner, width, B, columns, rank, addresses): `rows` x `vectors` x 16 outputs."""

    @intrinsic
    def expand(_context: Any, inner: Any, width: Any, b: Any, columns: Any, rank: Any, places: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            inner, width, b, columns, rank, places = arguments
            sums = _accumulators(builder, rows * vectors)
            with cgutils.for_range(builder, rank) as loop:
                start = _at(builder, b, builder.mul(loop.index, columns), 2)
                weights = [
                    _widen(builder, builder.add(start, ir.Constant(_INT, 2 * VECTOR * vector)))
                    for vector in range(vectors)
                ]
                for row in range(rows):
                    address = _at(builder, inner, _offset(builder, row, width, loop.index), 4)
                    factor = _spread(builder, _load(builder, address, ir.FloatType(), 4))
                    for vector in range(vectors):
                        _fma(builder, weights[vector], factor, sums[row * vectors + vector])
            for row in range(rows):
                y = _load(builder, builder.add(places, ir.Constant(_INT, 8 * row)), _INT, 8)
                for vector in range(vectors):
                    address = builder.add(y, ir.Constant(_INT, 2 * VECTOR * vector))
                    total = builder.fadd(_widen(builder, address), builder.load(sums[row * vectors + vector]))
                    _store(builder, _narrow(builder, total), address, 2)
            return _context.get_dummy_value()

        return types.void(inner, width, b, columns, rank, places), generate

    return expand  # type: ignore[no-any-return]


@intrinsic
def _widen_row(_context: Any, source: Any, target: Any, count: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source, target, count = arguments
        steps = builder.udiv(count, ir.Constant(_INT, VECTOR))
        with cgutils.for_range(builder, steps) as loop:
            place = builder.mul(loop.index, ir.Constant(_INT, VECTOR))
            values = _widen(builder, _at(builder, source, place, 2))
            _store(builder, values, _at(builder, target, place, 4), 4)
        return _context.get_dummy_value()

    return types.void(source, target, count), generate


@intrinsic
def _integers(_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _INT.as_pointer())

    return types.CPointer(types.int64)(address), generate


def _by_rows(make: Callable[[int], Any]) -> Any:
    """Return a function of the number of rows and what `make(rows)` takes."""
    one, two, three, four = (make(rows) for rows in range(1, TILE + 1))

    @njit
    def chosen(rows: int, *arguments: int) -> None:
        if rows == 4:
            four(*arguments)
        elif rows == 3:
            three(*arguments)
        elif rows == 2:
            two(*arguments)
        else:
            one(*arguments)

    return chosen


_shrink_rows = _by_rows(_shrink)
_expand_wide = _by_rows(lambda rows: _expand(rows, _WIDE // VECTOR))
_expand_rest = _by_rows(lambda rows: _expand(rows, 1))


@njit
def _slice(rows: int, x: int, inputs: int, entry: Integers, y: Integers, columns: int) -> None:
    a, b, rank = entry[0], entry[1], entry[2]
    inner = np.empty(rows * rank, np.float32)
    for first in range(0, rank, RANKS):
        _shrink_rows(rows, x, inputs, a + 2 * first * inputs, inner.ctypes.data + 4 * first, rank)
    column = 0
    while column < columns:
        if column + _WIDE <= columns:
            _expand_wide(rows, inner.ctypes.data, rank, b + 2 * column, columns, rank, y.ctypes.data)
            width = _WIDE
        else:
            _expand_rest(rows, inner.ctypes.data, rank, b + 2 * column, columns, rank, y.ctypes.data)
            width = VECTOR
        column += width
        for row in range(rows):
            y[row] += 2 * width


@njit
def _tile(
    number: int, y: int, y_stride: int, x: int, x_stride: int, plan: Integers, table: Integers, scale: float
) -> None:
    slices, inputs, slots = table[0], table[1], table[2]
    slot, first, rows = plan[1 + 3 * number], plan[2 + 3 * number], plan[3 + 3 * number]
    order = plan[1 + 3 * plan[0] + first :]
    places = np.empty(rows, np.int64)
    widened = np.empty(0, np.float32)
    for part in range(slices):
        entry = table[3 + 3 * (slot * slices + part) :]
        if entry[2] == 0:
            continue
        if widened.size == 0:
            widened = np.empty(rows * inputs, np.float32)
            for row in range(rows):
                _widen_row(x + 2 * order[row] * x_stride, widened.ctypes.data + 4 * row * inputs, inputs)
            if scale != 1:
                widened *= scale
        span = table[3 + 3 * slots * slices + 2 * part :]
        for row in range(rows):
            places[row] = y + 2 * (order[row] * y_stride + span[0])
        _slice(rows, widened.ctypes.data, inputs, entry, places, span[1])


@njit(cache=True, parallel=True)
def _parallel(
    threads: int,
    y: int,
    y_stride: int,
    x: int,
    x_stride: int,
    plan: Integers,
    table: Integers,
    scale: float,
) -> None:
    tiles = plan[0]
    for thread in prange(threads):
        for number in range(tiles * thread // threads, tiles * (thread + 1) // threads):
            _tile(number, y, y_stride, x, x_stride, plan, table, scale)


@njit("void(int64,int64,int64,int64,int64,int64,int64,int64,float32,int64)", cache=True)
def add(
    y: int,
    y_stride: int,
    x: int,
    x_stride: int,
    plan_address: int,
    plan_size: int,
    table_address: int,
    table_size: int,
    scale: float,
    threads: int,
) -> None:
    """Add every tile's part to `y`; strides are in numbers, addresses in bytes."""
    plan = carray(_integers(plan_address), (plan_size,))
    table = carray(_integers(table_address), (table_size,))
    tiles = plan[0]
    if threads > 1 and tiles > 1:
        _parallel(min(threads, tiles), y, y_stride, x, x_stride, plan, table, scale)
    else:
        for number in range(tiles):
            _tile(number, y, y_stride, x, x_stride, plan, table, scale)
