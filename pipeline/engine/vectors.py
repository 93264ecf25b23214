"""The processor's vectors, as far as there are kernels for them."""

import torch

AVX2, AVX512 = 8, 16
"""float32 numbers in one of them."""
_BY_CAPABILITY = {"AVX2": AVX2, "AVX512": AVX512}


def lanes() -> int | None:
    """How many numbers a vector has; None where no kernel is written for such a processor."""
    return _BY_CAPABILITY.get(torch.backends.cpu.get_cpu_capability())
