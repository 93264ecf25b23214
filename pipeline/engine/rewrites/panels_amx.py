"""How a matrix in bfloat16 lies for the kernel that multiplies tiles of rows with it; and two of them, of which one gates the other."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor

from pipeline.engine.amx import DEPTH, SIDE
from pipeline.engine.arrays import HALF, Array, array, tensor
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.rewrites import product_amx
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.threads import workers
from pipeline.engine.tile_amx import COLUMNS
from pipeline.engine.vectors import has_tiles

AT_A_TIME = 256
"""Panels that are made in one go: what is needed meanwhile stays small."""
PROOF_ROWS, PROOF_DEPTH, PROOF_WIDTH = 41, 96, 96
Gate = tuple[float, float]
UNGATED: Gate = (0.0, 0.0)
NOTHING = np.empty((0, 0), dtype=HALF)
PROOF_GATE: Gate = (1.6, 0.04)


class TilePanels:
    """A linear layer's weight and bias; or those of two layers, of which one gates the other.

    Args:
        numbers: [width / 32, depth / 32, 2 x 16 x 16 x 2], bfloat16: see `tile_amx`; the last panel may be filled up with zeros.
        bias: Of the columns, filled up likewise, float32.
        width: Of what comes of rows.
        gate: Slope and cubic by which in each panel the first sixteen columns gate the others; None where they do not.
    """

    __slots__ = ("_added", "_gate", "_kernels", "_numbers", "_width")

    def __init__(self, numbers: Tensor, bias: Tensor, width: int, gate: Gate | None = None):
        self._numbers: Array = array(numbers)
        self._added: Array = bias.numpy()
        self._width, self._gate = width, gate
        self._kernels = Pair(partial(product_amx.form, is_gated=gate is not None), gates_right if gate else is_right)

    @classmethod
    def of(cls, matrix: Tensor, bias: Tensor | None) -> "TilePanels | None":
        """Lays out a matrix, [width, depth]; None where there is no kernel for it and none will come."""
        if not can_lay(matrix):
            return None
        panels = cls.lay(matrix, bias)
        return panels if panels.is_expected() else None

    @classmethod
    def lay(cls, matrix: Tensor, bias: Tensor | None = None) -> "TilePanels":
        """Whatever the processor."""
        return cls(*_laid(matrix, bias), len(matrix))

    @classmethod
    def lay_gate(cls, gate: Tensor, up: Tensor, biases: tuple[Tensor, Tensor] | None, by: Gate) -> "TilePanels":
        """Likewise, two matrices of the same size, with their biases or without."""
        bias = None if biases is None else _alternating(*biases)
        return cls(*_laid(_alternating(gate, up), bias), len(gate), by)

    def matrix(self) -> Tensor:
        """As it was, [width, depth], or both by turns, sixteen columns of each; a copy."""
        panels = tensor(self._numbers).unflatten(-1, (2, SIDE, SIDE, 2))
        columns = panels.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)
        return columns if self._gate else columns[: self._width]

    def is_expected(self) -> bool:
        """Tells whether there is a kernel for it, or one is on its way."""
        return self._kernels.is_expected(is_parallel=workers() > 1)

    def kernel(self) -> Kernel | None:
        """What multiplies with it; None where there is none, or not yet."""
        return self._kernels.find(is_parallel=workers() > 1)

    def multiply(self, kernel: Kernel, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """Rows, [..., depth], in; [..., width] out, added to `onto`, contiguous."""
        return self.into(rows.new_empty(*rows.shape[:-1], self._width), kernel, rows, onto)  # torch's memory begins where a cache line does

    def into(self, result: Tensor, kernel: Kernel, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """As `multiply`, into the memory of a tensor, [..., width], contiguous, which it returns."""
        given = array(rows.contiguous())
        slope, cubic = self._gate or UNGATED
        flat, out = given.reshape(-1, given.shape[-1]), array(result).reshape(-1, self._width)
        added = NOTHING if onto is None else array(onto).reshape(-1, self._width)
        kernel(flat, self._numbers, self._added, np.float32(slope), np.float32(cubic), added, out, workers())
        return result

    def by_torch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the two make of rows, [..., width] both, one of which is yet to gate the other."""
        both = F.linear(rows, self.matrix(), torch.from_numpy(self._added).to(rows.dtype)).unflatten(-1, (-1, 2, SIDE))
        gate, up = both.unbind(-2)
        return gate.flatten(-2), up.flatten(-2)


def can_lay(matrix: Tensor) -> bool:
    """Tells whether there may be a kernel for a matrix, [width, depth]."""
    return has_tiles() and matrix.is_cpu and matrix.dtype is torch.bfloat16 and not matrix.shape[1] % DEPTH


def _laid(matrix: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Panels and bias."""
    width, depth = matrix.shape
    more = -width % COLUMNS
    added = torch.zeros(width + more) if bias is None else F.pad(bias.float(), (0, more))
    panels = matrix.new_empty((width + more) // COLUMNS, depth // DEPTH, COLUMNS * DEPTH)
    for first in range(0, len(panels), AT_A_TIME):
        room = panels[first : first + AT_A_TIME]
        piece = matrix[first * COLUMNS :][: len(room) * COLUMNS]
        piece = F.pad(piece, (0, 0, 0, len(room) * COLUMNS - len(piece)))
        # [panels, halves, columns, steps, pairs, 2] to [panels, steps, halves, pairs, columns, 2]
        pairs = piece.view(-1, 2, SIDE, depth // DEPTH, SIDE, 2).permute(0, 3, 1, 4, 2, 5)
        room.view(pairs.shape).copy_(pairs)
    return panels, added


def _alternating(one: Tensor, other: Tensor) -> Tensor:
    """Rows of two by turns, sixteen of each."""
    return torch.stack([part.unflatten(0, (-1, SIDE)) for part in (one, other)], 1).flatten(0, 2)


def is_right(kernel: Kernel) -> bool:
    """Tells whether a kernel computes from random numbers what torch's operation does."""
    rows, matrix, bias = _proof()
    onto = rows.roll(1)
    room = torch.full_like(rows, torch.nan)
    are_right = (are_close(TilePanels.lay(matrix, own).into(room, kernel, rows), F.linear(rows, matrix, own)) for own in (None, bias))
    return all(are_right) and are_close(TilePanels.lay(matrix).into(room, kernel, rows, onto), F.linear(rows, matrix) + onto)


def gates_right(kernel: Kernel) -> bool:
    """Likewise of one that gates, by the function that has a cubic as well."""
    rows, matrix, bias = _proof()
    (gate, up), (first, second) = matrix.chunk(2), bias.chunk(2)
    biases = first, second
    room = torch.full((len(rows), len(gate)), torch.nan, dtype=rows.dtype)
    got = TilePanels.lay_gate(gate, up, biases, PROOF_GATE).into(room, kernel, rows)
    one, other = (F.linear(rows.float(), part.float(), own.float()) for part, own in zip((gate, up), biases, strict=True))
    slope, cubic = PROOF_GATE
    return are_close(got, (one * torch.sigmoid(slope * (one + cubic * one**3)) * other).to(got.dtype))


def _proof() -> tuple[Tensor, Tensor, Tensor]:
    """Rows, a matrix and a bias; what comes of them is about 1, so that a gate bends it."""
    draw = torch.Generator().manual_seed(0)
    shapes = (PROOF_ROWS, PROOF_DEPTH), (PROOF_WIDTH, PROOF_DEPTH), (PROOF_WIDTH,)
    rows, matrix, bias = (torch.randn(shape, generator=draw) for shape in shapes)
    return rows.bfloat16(), (matrix / PROOF_DEPTH**0.5).bfloat16(), bias.bfloat16()
