"""When two ways of computing count as one."""

import torch
from torch import Tensor

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest distance of a row from what it should be, relative to the length of that."""


def are_close(got: Tensor, expected: Tensor) -> bool:
    """Tells whether two tensors agree in form and, row by row, in their numbers; what is not a number agrees with nothing."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    distance = (got.float() - expected.float()).norm(dim=-1) - BOUNDS[expected.dtype] * expected.float().norm(dim=-1)
    return bool((distance <= 0).all())
