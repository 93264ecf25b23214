"""Modules rewritten one at a time, on whatever processor the tests run."""

import pytest
import torch
from torch import nn

from pipeline.engine.rewrites import rewriting
from pipeline.engine.rewrites.rewriting import rewrite

CPU = torch.device("cpu")
ROWS = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def packs_here(monkeypatch):
    """On whatever processor the tests run, packed weights count as faster for float32."""
    monkeypatch.setattr(rewriting, "can_pack", lambda dtype, device: dtype is torch.float32 and device == CPU)


def rewritten(module):
    """A container's only child, rewritten, and the counts."""
    parent = nn.Sequential(module)
    counts = rewrite(parent, torch.float32, CPU)
    return parent[0], dict(counts)
