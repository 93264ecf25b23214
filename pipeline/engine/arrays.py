"""Tensors of a processor as arrays, which compiled kernels take: float32 as it is, bfloat16 as its bits."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
