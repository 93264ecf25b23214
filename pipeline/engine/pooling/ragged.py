"""From tensors to the compiled kernel for texts of any lengths, where there is one for them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pipeline.engine.arrays import HELD
from pipeline.engine.attention.ragged import form as kernel_form
from pipeline.engine.attention.ragged import room_numbers
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import KERNELS
from pipeline.engine.pooling.batching import Run
from pipeline.engine.rewrites.closeness import are_close
from pipeline.engine.threads import workers
from pipeline.engine.tile import columns
from pipeline.engine.vectors import lanes

PROOF_LENGTHS = (1, 5, 37, 70)
PROOF_HEADS, PROOF_KV_HEADS, PROOF_WIDTH = 4, 2, 32

Starts = npt.NDArray[np.int64]


def starts_of(row: Sequence[Run]) -> Starts:
    """Where each text of a row begins, and where the last one ends; [texts + 1]."""
    begins = [run.start + number * run.tokens for run in row for number in range(run.texts)]
    return np.array([*begins, row[-1].end], dtype=np.int64)


def find_kernel(query: Tensor, value: Tensor) -> Kernel | None:
    """The kernel for heads, [1, heads, T, width]; None where there is none, or not yet."""
    known = lanes()
    if known is None or query.device.type != "cpu" or query.dtype not in HELD:
        return None
    if query.shape[-1] % known or value.shape[-1] % columns(known):
        return None
    return KERNELS.find(kernel_form(known, is_parallel=workers() > 1), is_right)


def attend(kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, starts: Starts, scaling: float) -> Tensor:
    """Computes one layer.

    Args:
        kernel: The one for such heads.
        query: [1, heads, T, key width], float32 or bfloat16; float32 is computed.
        key: [1, KV heads, T, key width].
        value: [1, KV heads, T, value width].
        starts: See `starts_of`.
        scaling: Factor on the scores; above 0.

    Returns:
        [T, heads, value width].
    """
    widths = query.shape[-1], value.shape[-1]
    out = torch.empty(query.shape[2], query.shape[1], widths[1])
    room = np.empty((workers(), room_numbers(int(np.diff(starts).max()), *widths)), dtype=np.float32)
    kernel(*map(_rows, (query, key, value)), starts, np.float32(scaling), room, out.numpy())
    return out.to(query.dtype)


def _rows(heads: Tensor) -> npt.NDArray[np.float32]:
    """[1, heads, T, width] -> [T, heads, width], without a copy where float32 numbers of a head lie side by side."""
    heads = heads.float()
    rows: npt.NDArray[np.float32] = (heads if heads.stride(-1) == 1 else heads.contiguous())[0].transpose(0, 1).numpy()
    return rows


def is_right(kernel: Kernel) -> bool:
    """Tells whether a kernel computes from random numbers what torch's operation does for each text by itself."""
    draw = torch.Generator().manual_seed(0)
    tokens = sum(PROOF_LENGTHS)
    heads = (PROOF_HEADS, PROOF_KV_HEADS, PROOF_KV_HEADS)
    query, key, value = (torch.randn(1, count, tokens, PROOF_WIDTH, generator=draw) for count in heads)
    starts = np.cumsum([0, *PROOF_LENGTHS])
    got = attend(kernel, query, key, value, starts, PROOF_WIDTH**-0.5)
    expected = [
        scaled_dot_product_attention(own, keys, values, enable_gqa=True)[0].transpose(0, 1)
        for own, keys, values in zip(query.split(PROOF_LENGTHS, 2), key.split(PROOF_LENGTHS, 2), value.split(PROOF_LENGTHS, 2), strict=True)
    ]
    return are_close(got, torch.cat(expected))
