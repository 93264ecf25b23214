"""What numba's own loops cannot say in kernels, written as the compiler's code: products of a few rows, and rows turned into columns.

The product's inner loop takes six rows times two vectors of columns, whose sums stay in registers. Twelve sums, two pieces of a panel
and one number of a row fill the sixteen registers of AVX2; so it is done in BLIS's kernels for such processors (Van Zee and van de
Geijn 2015). A row's sums never depend on the rows beside it: they are the same, bit for bit, in every batch.

A panel is [depth, columns]: of a matrix as many columns as a tile has, as the loop reads them. Numbers that bfloat16 can hold take half
the room: a narrow panel is [depth, lanes] words, of which the low half is a number of the first vector, the high half one of the second.
"""

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 6
VECTORS = 2
UNROLLED = 4
"""Steps of the loop that are written out."""

INDEX = ir.IntType(64)
NUMBERS = ir.FloatType().as_pointer()
BYTES = 4
"""Of a number."""

ADDRESS, COUNT = types.uintp, types.intp


def columns(lanes: int) -> int:
    """Columns of a tile whose vectors have so many lanes."""
    return VECTORS * lanes


def _tile(typing_context: Any, lanes: Any, is_narrow: Any, rows: Any, panel: Any, depth: Any, start: Any, out: Any) -> Any:  # noqa: ARG001
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001 -- numba's protocol
        _Code(builder, lanes.literal_value, is_narrow=bool(is_narrow.literal_value)).multiply(*arguments[2:])
        return context.get_dummy_value()

    place = types.Tuple((ADDRESS, COUNT))
    return types.void(lanes, is_narrow, types.Tuple((ADDRESS, COUNT, COUNT)), ADDRESS, COUNT, place, place), generate


tile: Any = intrinsic(prefer_literal=True)(_tile)
"""In kernels: `tile(lanes, is_narrow, rows, panel, depth, start, out)` multiplies one to six rows with one panel.

`is_narrow` is 0 or 1. `rows` are the address of the first, how many bytes lie from one to the next, and how many there are; `panel` is an
address. `out` is the address of the first row of sums, and how many numbers lie from one to the next; `start` likewise of what sums begin
with, where an address of 0 stands for zeros.
"""


def _rearranging(method: str) -> Any:
    """A function for kernels that makes a part of a panel of rows, by the code that a method of `_Code` writes."""

    def typed(typing_context: Any, lanes: Any, rows: Any, stride: Any, count: Any, panel: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            getattr(_Code(builder, lanes.literal_value), method)(*arguments[1:])
            return context.get_dummy_value()

        return types.void(lanes, ADDRESS, COUNT, COUNT, ADDRESS), generate

    return intrinsic(prefer_literal=True)(typed)


turn: Any = _rearranging("turn")
"""In kernels: `turn(lanes, rows, stride, count, panel)` makes columns of a panel from the first numbers of as many rows as there are lanes.

`rows` and `stride` are as above, `count` may be any number: in place of rows that are not there, the last one is read again, also where
that lies before the first that is asked for.
"""

lay: Any = _rearranging("lay")
"""In kernels: `lay(lanes, rows, stride, count, panel)` makes a panel from the first numbers of `count` rows."""


class _Code:
    """Writes one of them."""

    def __init__(self, builder: Any, lanes: int, *, is_narrow: bool = False):
        self._builder = builder
        self._lanes = lanes
        self._is_narrow = is_narrow
        self._vector = ir.VectorType(ir.FloatType(), lanes)

    def multiply(self, rows: Any, panel: Any, depth: Any, start: Any, out: Any) -> None:
        """By code for each number of rows, of which one runs."""
        builder = self._builder
        (first, stride, count), panel = cgutils.unpack_tuple(builder, rows), builder.inttoptr(panel, NUMBERS)
        done = builder.append_basic_block("done")
        which = builder.switch(count, done)
        for number in range(1, ROWS + 1):
            block = builder.append_basic_block(f"rows_{number}")
            which.add_case(ir.Constant(INDEX, number), block)
            builder.position_at_end(block)
            self._multiply([self._at(first, stride, row) for row in range(number)], panel, depth, start, out)
            builder.branch(done)
        builder.position_at_end(done)

    def _multiply(self, rows: list[Any], panel: Any, depth: Any, start: Any, out: Any) -> None:
        """Adds up over the depth, then stores."""
        builder = self._builder
        sums = self._begun(len(rows), *cgutils.unpack_tuple(builder, start))
        address, width = cgutils.unpack_tuple(builder, out)
        out = builder.inttoptr(address, NUMBERS)
        for step in self._steps(depth):
            self._add_products(step, rows, panel, sums)
        for row, own in enumerate(sums):
            at = builder.gep(out, [builder.mul(width, ir.Constant(INDEX, row))])
            for vector, place in enumerate(own):
                builder.store(builder.load(place), self._piece(at, vector), align=BYTES)

    def turn(self, rows: Any, stride: Any, count: Any, panel: Any) -> None:
        """Shuffles vectors with each other, halves with halves, until each holds one number of every row."""
        builder, lanes = self._builder, self._lanes
        vectors = [builder.load(self._piece(self._row(rows, stride, count, row), 0), align=BYTES) for row in range(lanes)]
        orders = [[lane // 2 + lane % 2 * lanes + half * lanes // 2 for lane in range(lanes)] for half in range(2)]
        shuffles = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), order) for order in orders]
        for _ in range(lanes.bit_length() - 1):
            vectors = [builder.shuffle_vector(vectors[i // 2], vectors[i // 2 + lanes // 2], shuffles[i % 2]) for i in range(lanes)]
        at = builder.inttoptr(panel, NUMBERS)
        for number, vector in enumerate(vectors):
            builder.store(vector, self._piece(at, number * VECTORS), align=BYTES)

    def lay(self, rows: Any, stride: Any, count: Any, panel: Any) -> None:
        """Loads and stores."""
        builder = self._builder
        to = builder.inttoptr(panel, NUMBERS)
        with cgutils.for_range(builder, count) as loop:
            source = builder.inttoptr(builder.add(rows, builder.mul(stride, loop.index)), NUMBERS)
            target = builder.gep(to, [builder.mul(loop.index, ir.Constant(INDEX, VECTORS * self._lanes))])
            for vector in range(VECTORS):
                builder.store(builder.load(self._piece(source, vector), align=BYTES), self._piece(target, vector), align=BYTES)

    def _begun(self, rows: int, start: Any, stride: Any) -> list[list[Any]]:
        """Places of the sums, which hold what they begin with."""
        builder, zeros = self._builder, ir.Constant(self._vector, None)
        sums = [[cgutils.alloca_once(builder, self._vector) for _ in range(VECTORS)] for _ in range(rows)]
        with builder.if_else(builder.icmp_unsigned("==", start, ir.Constant(INDEX, 0))) as (without, given):
            with without:
                for place in (place for own in sums for place in own):
                    builder.store(zeros, place)
            with given:
                for row, own in enumerate(sums):
                    at = builder.gep(builder.inttoptr(start, NUMBERS), [builder.mul(stride, ir.Constant(INDEX, row))])
                    for vector, place in enumerate(own):
                        builder.store(builder.load(self._piece(at, vector), align=BYTES), place)
        return sums

    def _steps(self, depth: Any) -> Iterator[Any]:
        """Numbers the steps within a loop over the depth: some written out, and the rest of them one by one."""
        builder, unrolled = self._builder, ir.Constant(INDEX, UNROLLED)
        with cgutils.for_range(builder, builder.udiv(depth, unrolled)) as loop:
            for step in range(UNROLLED):
                yield builder.add(builder.mul(loop.index, unrolled), ir.Constant(INDEX, step))
        begin = builder.sub(depth, builder.urem(depth, unrolled))
        with cgutils.for_range_slice(builder, begin, depth, ir.Constant(INDEX, 1)) as (step, _):
            yield step

    def _add_products(self, step: Any, rows: list[Any], panel: Any, sums: list[list[Any]]) -> None:
        builder = self._builder
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{self._lanes}f32")
        pieces = self._pieces(panel, step)
        for row, own in zip(rows, sums, strict=True):
            repeated = self._repeated(builder.load(builder.gep(row, [step])))
            for piece, place in zip(pieces, own, strict=True):
                builder.store(builder.call(multiply_add, [repeated, piece, builder.load(place)]), place)

    def _pieces(self, panel: Any, step: Any) -> list[Any]:
        """A step's numbers of all columns."""
        builder, words = self._builder, ir.VectorType(ir.IntType(32), self._lanes)
        if not self._is_narrow:
            at = builder.gep(panel, [builder.mul(step, ir.Constant(INDEX, VECTORS * self._lanes))])
            return [builder.load(self._piece(at, vector), align=BYTES) for vector in range(VECTORS)]
        at = builder.gep(panel, [builder.mul(step, ir.Constant(INDEX, self._lanes))])
        both = builder.load(builder.bitcast(at, words.as_pointer()), align=BYTES)
        low = builder.shl(both, ir.Constant(words, [16] * self._lanes))
        high = builder.and_(both, ir.Constant(words, [0xFFFF0000] * self._lanes))
        return [builder.bitcast(half, self._vector) for half in (low, high)]

    def _row(self, first: Any, stride: Any, count: Any, number: int) -> Any:
        """Where a row begins, or the last that there is."""
        builder, constant = self._builder, ir.Constant(INDEX, number)
        real = builder.select(builder.icmp_signed("<", constant, count), constant, builder.sub(count, ir.Constant(INDEX, 1)))
        return self._at(first, stride, real)

    def _at(self, first: Any, stride: Any, number: Any) -> Any:
        offset = self._builder.mul(stride, ir.Constant(INDEX, number) if isinstance(number, int) else number)
        return self._builder.inttoptr(self._builder.add(first, offset), NUMBERS)

    def _piece(self, pointer: Any, number: int) -> Any:
        at = self._builder.gep(pointer, [ir.Constant(INDEX, number * self._lanes)])
        return self._builder.bitcast(at, self._vector.as_pointer())

    def _repeated(self, number: Any) -> Any:
        undefined = ir.Constant(self._vector, ir.Undefined)
        one = self._builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return self._builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), self._lanes), [0] * self._lanes))
