"""From tensors to the compiled kernel that puts keys and values into the cache, where there is one for them."""

import torch
from torch import Tensor

from pipeline.engine.arrays import HELD, array, pair_for
from pipeline.engine.attention import keep as by_kernel
from pipeline.engine.compilation import Kernel
from pipeline.engine.kernels import Pair
from pipeline.engine.threads import is_worth_splitting, workers

PROOF_SHAPE, PROOF_SLOTS = (2, 5, 6), 9


def kernels_for(keys: Tensor) -> Pair | None:
    """The kernels for a cache; None where there are none for it."""
    return pair_for(keys.dtype, by_kernel.form, is_right) if keys.is_cpu and keys.dtype in HELD else None


def keep(kernels: Pair | None, key: Tensor, value: Tensor, slots: Tensor, keys: Tensor, values: Tensor) -> None:
    """Puts tokens where they belong; with torch's operations where there is no kernel.

    Args:
        kernels: Those for such a cache.
        key: [KV heads, T or more, key width].
        value: [KV heads, T or more, value width].
        slots: Where the first T of them go, [T], int64.
        keys: Of the cache, [KV heads, slots, key width].
        values: Likewise, [KV heads, slots, value width].
    """
    tokens = slots.numel()
    kernel = None if kernels is None else kernels.find(is_parallel=is_worth_splitting(tokens * len(keys) * keys.shape[-1]))
    if kernel is None:
        keys.index_copy_(1, slots, key[:, :tokens])
        values.index_copy_(1, slots, value[:, :tokens])
    else:
        kernel(array(key), array(value), slots.numpy(), array(keys), array(values), workers())


def is_right(kernel: Kernel, *, dtype: torch.dtype) -> bool:
    """Tells whether a kernel puts random numbers where torch's operations put them, and nothing elsewhere."""
    key, value = torch.randn(2, *PROOF_SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    slots = torch.tensor([7, 0, 3, 8])
    caches = torch.zeros(2, 2, PROOF_SHAPE[0], PROOF_SLOTS, PROOF_SHAPE[-1], dtype=dtype)
    kernel(array(key), array(value), slots.numpy(), *map(array, caches[0]), workers())
    keep(None, key, value, slots, *caches[1])
    return bool(torch.equal(*caches))
