"""Modules rewritten one at a time, on whatever processor the tests run."""

import pytest
import torch
from torch import nn

from pipeline.engine.rewrites import rewriting
from pipeline.engine.rewrites.rewriting import rewrite

CPU = torch.device("cpu")
ROWS = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True, params=["AVX2", "AVX512"])
def packs_here(request, monkeypatch):
    """On whatever processor the tests run: packed weights count as faster for float32, and there is a kernel of our own, or there is none."""
    monkeypatch.setattr(rewriting, "can_pack", lambda dtype, device: dtype is torch.float32 and device == CPU)
    monkeypatch.setattr(rewriting, "can_pack_for_many_rows", lambda *_: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)
    return request.param


def rewritten(module):
    """A container's only child, rewritten, and the counts."""
    parent = nn.Sequential(module)
    counts = rewrite(parent, torch.float32, CPU)
    return parent[0], dict(counts)
