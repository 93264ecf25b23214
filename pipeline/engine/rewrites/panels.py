"""How a matrix lies for the kernel that multiplies rows with it."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor

from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.rewrites import product
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.threads import workers
from pipeline.engine.tile import columns
from pipeline.engine.vectors import AVX2, lanes

LANES = AVX2
"""Processors with wider vectors are left to torch, whose libraries have better for them."""
COLUMNS = columns(LANES)
LOW, HIGH = 0xFFFF, -0x10000
"""Bits of a float32: bfloat16 has the high ones alone."""
AT_A_TIME = 256
"""Panels that are made in one go: what is needed meanwhile stays small."""
NOTHING: npt.NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
PROOF_ROWS, PROOF_DEPTH, PROOF_WIDTH = 9, 389, 48


class Panels:
    """A linear layer's weight, [width, depth], float32, and its bias.

    It is narrow where bfloat16 can hold its numbers, as those of a checkpoint that was written so: nothing is lost, and half is read.

    Args:
        numbers: [width / columns of a tile, depth, columns of a tile], float32; or narrow, [.., depth, lanes], int32: see `tile`.
        bias: [width].
    """

    __slots__ = ("_added", "_kernels", "_numbers")

    def __init__(self, numbers: Tensor, bias: Tensor | None):
        self._numbers: npt.NDArray[Any] = numbers.numpy()
        self._added = NOTHING if bias is None else bias.numpy()[None]
        self._kernels = Pair(partial(product.form, LANES, is_narrow=self.is_narrow), self.is_right)

    @classmethod
    def of(cls, matrix: Tensor, bias: Tensor | None) -> "Panels | None":
        """Lays out a matrix; None where there is no kernel for it and none will come."""
        if lanes() != LANES or len(matrix) % COLUMNS or matrix.dtype is not torch.float32 or not matrix.is_cpu:
            return None
        panels = cls.lay(matrix, bias)
        return panels if panels.is_expected() else None

    @classmethod
    def lay(cls, matrix: Tensor, bias: Tensor | None = None) -> "Panels":
        """Whatever the processor."""
        pieces = matrix.unflatten(0, (-1, COLUMNS)).split(AT_A_TIME)
        is_narrow = not any((piece.view(torch.int32) & LOW).any() for piece in pieces)
        shape = (matrix.shape[0] // COLUMNS, matrix.shape[1], LANES if is_narrow else COLUMNS)
        numbers = matrix.new_empty(shape, dtype=torch.int32 if is_narrow else torch.float32)
        for piece, room in zip(pieces, numbers.split(AT_A_TIME), strict=True):
            room.copy_((_paired(piece) if is_narrow else piece).transpose(1, 2))
        return cls(numbers, bias)

    @property
    def is_narrow(self) -> bool:
        """Whether its numbers take two bytes each."""
        return self._numbers.dtype == np.int32

    def matrix(self) -> Tensor:
        """As it was, [width, depth]; a copy."""
        numbers = torch.from_numpy(self._numbers)
        wide = torch.cat((numbers << 16, numbers & HIGH), -1).view(torch.float32) if self.is_narrow else numbers
        return wide.transpose(1, 2).flatten(0, 1)

    def is_expected(self) -> bool:
        """Tells whether there is a kernel for it, or one is on its way."""
        return self._kernels.is_expected(is_parallel=workers() > 1)

    def kernel(self) -> Kernel | None:
        """What multiplies with it; None where there is none, or not yet."""
        return self._kernels.find(is_parallel=workers() > 1)

    def multiply(self, kernel: Kernel, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """Rows, [..., depth], in; [..., width] out, added to `onto`, contiguous."""
        room = rows.new_empty(*rows.shape[:-1], len(self._numbers) * COLUMNS)  # torch's memory begins where a cache line does, numpy's need not
        return self.into(room, kernel, rows, onto)

    def into(self, result: Tensor, kernel: Kernel, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """As `multiply`, into the memory of a tensor, [..., width], contiguous, which it returns."""
        if onto is not None and self._added.size:
            return self.into(result, kernel, rows).add_(onto)
        given = rows.numpy()
        width = len(self._numbers) * COLUMNS
        flat = np.ascontiguousarray(given.reshape(-1, given.shape[-1]))
        added = self._added if onto is None else onto.numpy().reshape(-1, width)
        kernel(flat, self._numbers, added, result.numpy().reshape(-1, width), workers())
        return result

    def is_right(self, kernel: Kernel) -> bool:
        """Tells whether a kernel for such panels computes from random numbers what torch's operation does."""
        draw = torch.Generator().manual_seed(0)
        rows, matrix = torch.randn(PROOF_ROWS, PROOF_DEPTH, generator=draw), torch.randn(PROOF_WIDTH, PROOF_DEPTH, generator=draw)
        matrix = matrix.bfloat16().float() if self.is_narrow else matrix
        bias, onto = torch.randn(PROOF_WIDTH, generator=draw), torch.randn(PROOF_ROWS, PROOF_WIDTH, generator=draw)
        room = torch.full_like(onto, torch.nan)
        are_right = (are_close(Panels.lay(matrix, own).into(room, kernel, rows), F.linear(rows, matrix, own)) for own in (None, bias))
        return all(are_right) and are_close(Panels.lay(matrix).into(room, kernel, rows, onto), F.linear(rows, matrix) + onto)


def _paired(piece: Tensor) -> Tensor:
    """Words of two numbers each, [panels, lanes, depth], int32, of [panels, columns, depth]: the first half of the columns lies low."""
    low, high = piece.view(torch.int32).unflatten(1, (2, LANES)).unbind(1)
    return (low >> 16 & LOW) | (high & HIGH)
