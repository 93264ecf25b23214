"""The inner loop of a product of matrices: six rows times sixteen columns, whose sums stay in registers from first to last.

Twelve sums, two pieces of a panel and one number of a row fill the sixteen registers of AVX2; so it is done in BLIS's kernels for
such processors (Van Zee and van de Geijn 2015). numba's own loops cannot say it, therefore this is written as the compiler's code.
A row's sums never depend on the rows beside it: they are the same, bit for bit, in every batch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 6
COLUMNS = 16
LANES = 8
UNROLLED = 4

Panels = npt.NDArray[np.float32]
"""[ceil(columns / 16), depth, 16]: the columns of a matrix, sixteen at a time as the loop reads them, with zeros behind the last."""

_vector = ir.VectorType(ir.FloatType(), LANES)
_index = ir.IntType(64)


def can_tile(dtype: torch.dtype, device: torch.device) -> bool:
    """Tells whether it is the fastest here: where there is AVX2 and nothing wider, for which the libraries have better."""
    return device.type == "cpu" and dtype is torch.float32 and torch.backends.cpu.get_cpu_capability() == "AVX2"


def panels(matrix: npt.NDArray[np.float32]) -> Panels:
    """Lays out the weight of a linear layer, [columns, depth]."""
    columns, depth = matrix.shape
    count = -(-columns // COLUMNS)
    padded = np.zeros((count * COLUMNS, depth), dtype=np.float32)
    padded[:columns] = matrix
    return np.ascontiguousarray(padded.reshape(count, COLUMNS, depth).transpose(0, 2, 1))


def _tile(typing_context: Any, first: Any, stride: Any, rows: Any, panel: Any, depth: Any, out: Any, out_stride: Any) -> Any:  # noqa: ARG001
    signature = types.void(types.uintp, types.intp, types.intp, types.uintp, types.intp, types.uintp, types.intp)
    return signature, _generate


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 -- numba's protocol
    first, stride, count, panel, depth, out, out_stride = arguments
    number = ir.FloatType().as_pointer()
    rows = [builder.inttoptr(builder.add(first, builder.mul(stride, _smaller(builder, row, count))), number) for row in range(ROWS)]
    panel, out = builder.inttoptr(panel, number), builder.inttoptr(out, number)
    sums = [[cgutils.alloca_once_value(builder, ir.Constant(_vector, None)) for _ in range(COLUMNS // LANES)] for _ in range(ROWS)]
    multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_vector, [_vector] * 3), f"llvm.fma.v{LANES}f32")

    def add_products(place: Any) -> None:
        at = builder.gep(panel, [builder.mul(place, ir.Constant(_index, COLUMNS))])
        pieces = [builder.load(_vector_at(builder, at, LANES * half), align=4) for half in range(COLUMNS // LANES)]
        for row, own in zip(rows, sums, strict=True):
            repeated = _repeated(builder, builder.load(builder.gep(row, [place])))
            for piece, place_of_sum in zip(pieces, own, strict=True):
                builder.store(builder.call(multiply_add, [repeated, piece, builder.load(place_of_sum)]), place_of_sum)

    unrolled = ir.Constant(_index, UNROLLED)
    with cgutils.for_range(builder, builder.udiv(depth, unrolled)) as loop:
        for step in range(UNROLLED):
            add_products(builder.add(builder.mul(loop.index, unrolled), ir.Constant(_index, step)))
    with cgutils.for_range_slice(builder, builder.sub(depth, builder.urem(depth, unrolled)), depth, ir.Constant(_index, 1)) as (place, _):
        add_products(place)
    for row, own in enumerate(sums):
        at = builder.gep(out, [builder.mul(out_stride, ir.Constant(_index, row))])
        for half, place_of_sum in enumerate(own):
            builder.store(builder.load(place_of_sum), _vector_at(builder, at, LANES * half), align=4)
    return context.get_dummy_value()


def _smaller(builder: Any, row: int, count: Any) -> Any:
    """The number of a row, or of the last that there is."""
    constant, last = ir.Constant(_index, row), builder.sub(count, ir.Constant(_index, 1))
    return builder.select(builder.icmp_signed("<", constant, count), constant, last)


def _vector_at(builder: Any, pointer: Any, offset: int) -> Any:
    return builder.bitcast(builder.gep(pointer, [ir.Constant(_index, offset)]), _vector.as_pointer())


def _repeated(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(_vector, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


tile: Any = intrinsic(_tile)
"""In kernels: `tile(first, stride, rows, panel, depth, out, out_stride)` multiplies up to six rows with one panel.

`first` is the address of the first row, `stride` bytes lie from one to the next, `rows` of them are real: behind the last it is read
again. `panel` is the address of [depth, 16] numbers, `out` that of six rows of sixteen sums, `out_stride` numbers apart: all are written.
"""
