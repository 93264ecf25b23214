"""Numbers inside kernels."""

import numba
import numpy as np
import pytest
import torch

from pipeline.engine.arrays import array
from pipeline.engine.attention.arithmetic import fit, highest, load
from pipeline.engine.compilation import FASTMATH

EDGES = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-45, 3.4e38, -3.4e38])


@numba.njit(fastmath=FASTMATH)
def copy(given, out):
    """Number by number."""
    for i in range(given.size):
        out[i] = fit(load(given[i]), out)


@numba.njit(fastmath=FASTMATH)
def find_highest(numbers):
    """Of all."""
    return highest(numbers)


def test_numbers_are_rounded_to_bfloat16_as_torch_rounds_them():
    """Those that lie half way between two, those that are none, and those that are too large."""
    half_way = (torch.arange(1 << 16, dtype=torch.int32) << 16 | 1 << 15).view(torch.float32)
    given = torch.cat((half_way, torch.randn(1 << 14, generator=torch.Generator().manual_seed(0)) * torch.logspace(-38, 38, 1 << 14), EDGES))
    got = torch.empty(given.numel(), dtype=torch.bfloat16)
    copy(given.numpy(), array(got))
    torch.testing.assert_close(got, given.bfloat16(), rtol=0, atol=0, equal_nan=True)


def test_bfloat16_is_read_as_it_is():
    """Any of its numbers, and back."""
    given = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    wide = torch.empty(1 << 16)
    copy(array(given), wide.numpy())
    torch.testing.assert_close(wide, given.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 100, 257])
def test_the_highest_number_is_found_wherever_it_lies(count):
    """Also where all are below 0, and where some are no numbers."""
    for place in range(count):
        numbers = np.full(count, -3, dtype=np.float32)
        numbers[place - 1] = np.nan
        numbers[place] = -2
        assert find_highest(numbers) == -2
