"""Numbers inside compiled kernels: bfloat16 as its bits, and an exponential that compilers turn into vector instructions."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.engine.compilation import inlined

LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
LOWEST = np.float32(-87.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
VECTOR = 32
"""Numbers that are compared at a time: several vectors of any processor, which do not wait for each other."""
NOT_A_NUMBER = 0x7FC0
"""As bfloat16 has it; rounding its bits could make an infinity of one."""


def _as_float32(typing_context: Any, bits: Any) -> Any:  # noqa: ARG001 -- numba's protocol
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


as_float32: Any = intrinsic(_as_float32)
"""In kernels: a uint32 as the float32 of the same bits."""


def _load(typing_context: Any, number: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        if number != types.uint16:
            return arguments[0]
        bits = builder.zext(arguments[0], context.get_value_type(types.uint32))
        return builder.bitcast(builder.shl(bits, context.get_constant(types.uint32, 16)), context.get_value_type(types.float32))

    return types.float32(number), generate


load: Any = intrinsic(_load)
"""In kernels: a number as float32, be it one or the bits of a bfloat16."""


def _fit(typing_context: Any, number: Any, array: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        if array.dtype != types.uint16:
            return arguments[0]
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        last = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.lshr(builder.add(bits, builder.add(last, word(0x7FFF))), word(16))
        is_none = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(is_none, word(NOT_A_NUMBER), rounded), ir.IntType(16))

    return array.dtype(types.float32, array), generate


fit: Any = intrinsic(_fit)
"""In kernels: a float32 as an array holds its numbers: as it is, or as the bits of the nearest bfloat16, the even one of two."""


def _put(numbers: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = fit(numbers[i], out)


put: Any = inlined(_put)
"""In kernels: writes as many float32 numbers as an array takes."""


def held(*, is_half: int) -> Any:
    """Numba's type of the numbers of such arrays: float32, or the bits of bfloat16."""
    return types.uint16 if is_half else types.float32


def _ask_for(builder: Any, place: Any, nearness: int, to_write: int = 0) -> None:
    """For a cache line: 3 is the nearest cache, 2 the one behind it."""
    address, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    hint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [address, word, word, word]), "llvm.prefetch.p0i8")
    builder.call(hint, [builder.bitcast(place, address), word(to_write), word(nearness), word(1)])  # the last: data


def _fetching(nearness: int, to_write: int) -> Any:
    def typed(typing_context: Any, address: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            _ask_for(builder, builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()), nearness, to_write)
            return context.get_dummy_value()

        return types.void(types.uintp), generate

    return typed


fetch: Any = intrinsic(_fetching(2, 0))
"""In kernels: asks for the cache line at an address, into the second cache."""
claim: Any = intrinsic(_fetching(3, 1))
"""In kernels: asks for the cache line at an address, into the nearest cache, to be written."""


def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        struct = context.make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, struct, arguments[1:])
        _ask_for(builder, place, 3)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


prefetch: Any = intrinsic(_prefetch)
"""In kernels: asks for the cache line around [row, column] of an array."""


def _highest_of(typing_context: Any, address: Any, count: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        vector, index = ir.VectorType(ir.FloatType(), VECTOR), ir.IntType(64)
        place = cgutils.alloca_once_value(builder, ir.Constant(vector, [-np.inf] * VECTOR))
        row = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

        def higher(one: Any, other: Any) -> Any:
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        with cgutils.for_range(builder, builder.udiv(arguments[1], index(VECTOR))) as loop:
            piece = builder.bitcast(builder.gep(row, [builder.mul(loop.index, index(VECTOR))]), vector.as_pointer())
            builder.store(higher(builder.load(piece, align=4), builder.load(place)), place)
        best, half = builder.load(place), VECTOR // 2
        while half:
            order = ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [(lane + half) % VECTOR for lane in range(VECTOR)])
            best, half = higher(best, builder.shuffle_vector(best, best, order)), half // 2
        return builder.extract_element(best, ir.IntType(32)(0))

    return types.float32(types.uintp, types.intp), generate


_highest_of_vectors: Any = intrinsic(_highest_of)


def _highest(numbers: Any) -> Any:
    whole = numbers.size // VECTOR * VECTOR
    best = _highest_of_vectors(numbers.ctypes.data, whole)
    for i in range(whole, numbers.size):
        best = numbers[i] if numbers[i] > best else best  # noqa: FURB136 -- what is not a number is above nothing
    return best


highest: Any = inlined(_highest)
"""In kernels: the highest of the float32 numbers of an array, those set aside that are not numbers.

Compilers do not make vectors of such a loop: one of these numbers would make the result depend on the order.
"""


def _exp(x: Any) -> Any:
    x = LOWEST if x < LOWEST else x  # noqa: FURB136 -- NaN stays
    power = np.int32(x * LOG2_E - HALF)
    whole = np.float32(power)
    x = x - whole * LN2_HIGH - whole * LN2_LOW
    y = np.float32(1.9875691500e-4)
    y = y * x + np.float32(1.3981999507e-3)
    y = y * x + np.float32(8.3334519073e-3)
    y = y * x + np.float32(4.1665795894e-2)
    y = y * x + np.float32(1.6666665459e-1)
    y = y * x + np.float32(5.0000001201e-1)
    return (y * x * x + x + ONE) * as_float32(np.uint32(power + np.int32(127)) << np.uint32(23))


exp: Any = inlined(_exp)
"""In kernels: e to the power of a float32 that is not above 0, by the polynomial of Cephes' `expf`; 1e-38 where it is less."""
