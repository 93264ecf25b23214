"""Random numbers that depend on nothing but (seed, choice, output position).

A counter-based generator in the sense of Salmon et al. 2011 (Random123): no state, so a sequence draws the same alone, in
any batch, after a preemption and on any device. The mixing function is splitmix64's (Steele, Lea and Flood 2014), on int64
tensors, whose products wrap.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def uniforms(seeds: Tensor, choices: Tensor, positions: Tensor) -> Tensor:
    """Draws one number per row.

    Args:
        seeds: [rows], int64.
        choices: [rows], int64.
        positions: Output tokens before the one that is drawn, [rows], int64.

    Returns:
        [rows], float64, uniform in [0, 1) in steps of 2^-53.
    """
    stream = _mix(_mix(seeds + _GOLDEN) ^ (choices * _GOLDEN))
    bits = _mix(stream + (positions + 1) * _GOLDEN)
    return _shifted(bits, 11).to(torch.float64) * 2.0**-53


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Logical shift to the right; torch's own is arithmetic."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
