"""Numbers of rows that products are prepared for."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.engine.rewrites import prepared
from pipeline.engine.rewrites.prepared import filled, fills

CPU = torch.device("cpu")


@given(st.integers(1, 5_000))
def test_a_number_of_rows_is_filled_up_by_a_little(rows):
    """To one that stays as it is; by less than as much again, and from 64 on by less than a quarter."""
    full = filled(rows)
    assert rows <= full < 2 * rows
    assert filled(full) == full
    assert rows < 64 or full < 1.25 * rows


def test_there_are_few_numbers_of_rows():
    """Six products of each are as many as are kept prepared."""
    assert len({filled(rows) for rows in range(1, 1_088)}) == 29


@pytest.mark.parametrize(
    ("can_pack", "capability", "has_tiles", "dtype", "expected"),
    [
        (True, "AVX512", False, torch.bfloat16, True),
        (True, "AVX512", True, torch.bfloat16, False),
        (True, "AVX512", True, torch.float32, True),
        (True, "AVX2", False, torch.bfloat16, True),
        (True, "AVX2", False, torch.float32, False),
        (False, "AVX512", False, torch.bfloat16, False),
    ],
)
def test_rows_are_filled_up_where_products_are_onednns(monkeypatch, can_pack, capability, has_tiles, dtype, expected):
    """Not where they are our own, or torch's."""
    monkeypatch.setattr(prepared, "can_pack", lambda *_: can_pack)
    monkeypatch.setattr(prepared, "has_tiles", lambda: has_tiles)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert fills(dtype, CPU) is expected
