"""The processor's vectors and its matrix unit, as far as there are kernels for them."""

from functools import cache

import torch

AVX2, AVX512 = 8, 16
"""float32 numbers in one of them."""
_BY_CAPABILITY = {"AVX2": AVX2, "AVX512": AVX512}


def lanes() -> int | None:
    """How many numbers a vector has; None where no kernel is written for such a processor."""
    return _BY_CAPABILITY.get(torch.backends.cpu.get_cpu_capability())


@cache
def has_tiles() -> bool:
    """Tells whether there is a matrix unit for bfloat16, see `amx`, and the system lets this process use it."""
    return lanes() == AVX512 and bool(torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx())  # noqa: SLF001 -- there is no public way
