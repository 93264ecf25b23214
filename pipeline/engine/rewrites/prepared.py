"""Numbers of rows that oneDNN's products are prepared for.

It writes code for each product of another size: 1 to 3 ms for a few rows, 10 to 30 ms for hundreds, which may be several times what the
product takes. Steps rarely have the same number of tokens twice, so they are filled up to one of a few numbers.
"""

import torch

from pipeline.engine.rewrites.linear import can_pack, can_pack_for_many_rows
from pipeline.engine.vectors import AVX2, has_tiles, lanes

FEW = 16
STEPS = ((128, 16), (256, 32))
LARGEST_STEP = 64


def fills(dtype: torch.dtype, device: torch.device) -> bool:
    """Tells whether a model's products are mostly oneDNN's: where there is no kernel of our own, which takes any number of rows."""
    has_own = lanes() == AVX2 if dtype is torch.float32 else has_tiles()
    return can_pack(dtype, device) and not has_own


def fills_for_many_rows(dtype: torch.dtype, device: torch.device) -> bool:
    """Likewise, of a model that has many rows at a time."""
    return can_pack_for_many_rows(dtype, device) and fills(dtype, device)


def filled(rows: int) -> int:
    """The next number of rows that is prepared: a power of two while they are few, then a multiple of 16, of 32, of 64."""
    if rows <= FEW:
        return 1 << max(rows - 1, 0).bit_length()
    step = next((step for most, step in STEPS if rows <= most), LARGEST_STEP)
    return -(-rows // step) * step
