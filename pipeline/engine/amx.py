"""The processor's matrix unit in kernels: products of tiles of bfloat16, summed in float32 (AMX; Intel's instructions by their names).

There are eight tiles, 0 to 7, of up to 16 rows of 64 bytes. Their sizes are set before use and given back after it, by each thread for
itself. A tile's number is a part of the instruction: in kernels it is written out. `dot` adds [rows, depth] times [depth, columns] to
[rows, columns]; the second of them lies in pairs, [depth / 2, columns, 2].
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipeline.engine.compilation import inlined

SIDE = 16
"""Most rows of a tile; and most columns where its numbers are sums, or pairs."""
DEPTH = 32
"""Most numbers in a row."""

_SIZES_BYTES, _ROW_BYTES_AT, _ROWS_AT = 64, 16, 48
"""How sizes lie, by the manual: for each tile the bytes of a row, two bytes each, and further on its rows, a byte each."""
_TILE, _COUNT, _ADDRESS = ir.IntType(8), ir.IntType(64), ir.IntType(8).as_pointer()
_CODE_OF = {types.uintp: _ADDRESS, types.intp: _COUNT}


def _instruction(name: str, tiles: int = 0, *others: Any) -> Any:
    """One by the compiler's name for it: its tiles come first, then addresses and counts."""

    def typed(given: tuple[Any, ...]) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 -- numba's protocol
            numbers = [ir.Constant(_TILE, tile.literal_value) for tile in given[:tiles]]
            rest = [
                builder.inttoptr(argument, _ADDRESS) if kind is types.uintp else argument
                for kind, argument in zip(others, arguments[tiles:], strict=True)
            ]
            kind = ir.FunctionType(ir.VoidType(), [_TILE] * tiles + [_CODE_OF[other] for other in others])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), numbers + rest)
            return context.get_dummy_value()

        return types.void(*given[:tiles], *others), generate

    match tiles + len(others):  # numba asks for as many arguments as the instruction has
        case 0:
            return intrinsic(lambda _typing: typed(()))
        case 1:
            return intrinsic(prefer_literal=True)(lambda _typing, one: typed((one,)))
        case _:
            return intrinsic(prefer_literal=True)(lambda _typing, one, two, three: typed((one, two, three)))


_set_sizes = _instruction("ldtilecfg", 0, types.uintp)

release: Any = _instruction("tilerelease")
"""In kernels: `release()` gives the tiles back."""
zero: Any = _instruction("tilezero", 1)
"""In kernels: `zero(tile)`."""
load: Any = _instruction("tileloadd64", 1, types.uintp, types.intp)
"""In kernels: `load(tile, address, stride)` reads rows that lie so many bytes apart."""
store: Any = _instruction("tilestored64", 1, types.uintp, types.intp)
"""In kernels: `store(tile, address, stride)`."""
dot: Any = _instruction("tdpbf16ps", 3)
"""In kernels: `dot(sums, left, right)` adds the product of two tiles to a third."""


def _sizes_() -> Any:
    sizes = np.zeros(_SIZES_BYTES, dtype=np.uint8)
    sizes[0] = 1  # the only palette there is
    return sizes


def _size_(sizes: Any, tile: int, rows: int, row_bytes: int) -> None:
    sizes[_ROW_BYTES_AT + 2 * tile] = row_bytes
    sizes[_ROWS_AT + tile] = rows


def _configure_(sizes: Any) -> None:
    _set_sizes(sizes.ctypes.data)


no_sizes: Any = inlined(_sizes_)
"""In kernels: `no_sizes()` makes an array for the sizes of all tiles."""
size: Any = inlined(_size_)
"""In kernels: `size(sizes, tile, rows, row_bytes)` writes down one of them."""
configure: Any = inlined(_configure_)
"""In kernels: `configure(sizes)` applies them."""


def _pair(typing_context: Any, one: Any, other: Any, out: Any, further: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        numbers, order_kind = ir.VectorType(ir.IntType(16), DEPTH), ir.VectorType(ir.IntType(32), DEPTH)
        rows = [builder.load(builder.inttoptr(row, numbers.as_pointer()), align=2) for row in arguments[:2]]
        for half, at in enumerate((arguments[2], builder.add(arguments[2], arguments[3]))):
            order = ir.Constant(order_kind, [half * SIDE + i // 2 + DEPTH * (i % 2) for i in range(DEPTH)])
            builder.store(builder.shuffle_vector(*rows, order), builder.inttoptr(at, numbers.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp, types.uintp, types.intp), generate


pair: Any = intrinsic(_pair)
"""In kernels: `pair(one, other, out, further)` makes pairs of 32 numbers at two addresses: 16 of them at `out`, 16 so many bytes further."""


class _BFloat(ir.Type):  # type: ignore[misc]
    """The compiler's own type, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _narrow(typing_context: Any, vectors: Any, numbers: Any, out: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        count = vectors.literal_value
        wide, narrow = ir.VectorType(ir.FloatType(), SIDE), ir.VectorType(_BFloat(), count * SIDE)
        name = f"llvm.x86.avx512bf16.cvtne{'2' if count == 2 else ''}ps2bf16.512"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(narrow, [wide] * count), name)
        first = builder.inttoptr(arguments[1], wide.as_pointer())
        rows = [builder.load(builder.gep(first, [ir.Constant(_COUNT, number)]), align=4) for number in range(count)]
        builder.store(builder.call(function, rows[::-1]), builder.inttoptr(arguments[2], narrow.as_pointer()), align=2)
        return context.get_dummy_value()

    return types.void(vectors, types.uintp, types.uintp), generate


narrow: Any = intrinsic(prefer_literal=True)(_narrow)
"""In kernels: `narrow(vectors, numbers, out)` rounds 16 float32 numbers to the nearest bfloat16, or 2 x 16, by addresses."""
