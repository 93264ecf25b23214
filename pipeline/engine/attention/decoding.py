"""From tensors to the compiled decode kernel, where there is one for them."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.engine.attention.arithmetic import numbers
from pipeline.engine.attention.decode import decode_kernel
from pipeline.engine.attention.hook import Form
from pipeline.engine.attention.step import Decodes
from pipeline.engine.compilation import workers

NO_SINKS: npt.NDArray[np.float32] = np.empty(0, dtype=np.float32)


def can_decode(cache: Tensor) -> bool:
    """Tells whether the kernel reads such a cache."""
    return cache.device.type == "cpu" and cache.dtype in (torch.float32, torch.bfloat16)


def decode(keys: Tensor, values: Tensor, decodes: Decodes, query: Tensor, form: Form, attended: Tensor) -> None:
    """Computes one layer for the step's decodes, in float32 whatever the cache holds.

    Args:
        keys: [KV heads, blocks, block tokens, key width].
        values: [KV heads, blocks, block tokens, value width].
        decodes: What to decode.
        query: [heads, T, key width]; the decodes come first.
        form: What happens to the scores.
        attended: [T, heads, value width]; the decodes' places are written.
    """
    sequences, heads = decodes.lengths.numel(), query.shape[0]
    rows = query[:, :sequences].transpose(0, 1).float().contiguous()
    is_half = keys.dtype is torch.bfloat16
    out = attended[:sequences].float() if is_half else attended
    kernel = decode_kernel(heads // keys.shape[0], keys.shape[-1], values.shape[-1])
    kernel(
        rows.numpy(),
        numbers(keys.flatten(1, 2)),
        numbers(values.flatten(1, 2)),
        decodes.blocks.numpy(),
        decodes.starts.numpy(),
        keys.shape[2],
        decodes.lengths.numpy(),
        form.scaling,
        form.window,
        float(form.softcap),
        NO_SINKS if form.sinks is None else form.sinks.float().numpy(),
        out.numpy(),
        workers(),
    )
    if is_half:
        attended[:sequences] = out
