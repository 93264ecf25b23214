"""Tensors of a processor as arrays, which compiled kernels take: float32 as it is, bfloat16 as its bits. And the kernels for either."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.engine.forms import Form
from pipeline.engine.kernels import Pair

Array = npt.NDArray[Any]
HALF = np.uint16
HELD = {torch.float32: np.float32, torch.bfloat16: HALF}
"""What arrays hold in place of a tensor's numbers."""


def array(tensor: Tensor) -> Array:
    """The memory of a tensor."""
    held: Array = (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return held


def tensor(array: Array) -> Tensor:
    """The tensor whose memory an array is."""
    held = torch.from_numpy(array)
    return held.view(torch.bfloat16) if held.dtype is torch.uint16 else held


def pair_for(dtype: torch.dtype, form: Callable[..., Form], proof: Callable[..., bool]) -> Pair:
    """The kernels of a dtype.

    Args:
        dtype: What they compute from and write: float32 or bfloat16, as of all that is rewritten.
        form: Told whether that is bfloat16, and whether it is parallel.
        proof: Told the dtype.
    """
    return Pair(partial(form, is_half=HELD[dtype] is HALF), partial(proof, dtype=dtype))
