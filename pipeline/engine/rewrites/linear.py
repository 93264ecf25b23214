"""Linear layers over weights that lie as oneDNN reads them: packed once, not at each call."""

import os
import platform
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.engine.rewrites.rewrite import Rewrite

PRIMITIVES = "128"
"""Products of different sizes that oneDNN keeps prepared, half a MiB each; it would keep 1,024, and every step has another number of rows."""
for _variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # torch's own cache and the library's; read at the first product
    os.environ.setdefault(_variable, PRIMITIVES)


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Tells whether packed weights are faster here: measured on x86, where the processor multiplies the dtype itself."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


class Packed:
    """One packed weight with its bias.

    Args:
        linears: Where they come from. What several make of a row lies side by side; all have a bias, or none.
    """

    __slots__ = ("bias", "weight")

    def __init__(self, *linears: nn.Linear):
        weight = torch.cat([linear.weight.detach() for linear in linears]) if len(linears) > 1 else linears[0].weight.detach()
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)  # noqa: SLF001
        biases = [linear.bias for linear in linears if linear.bias is not None]
        self.bias: Tensor | None = torch.cat(biases) if biases else None

    def __call__(self, rows: Tensor, then: str = "none", how: str = "") -> Tensor:
        """Multiplies, and applies the elementwise function `then` of oneDNN's to what comes of it."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, then, [], how)  # noqa: SLF001
        return result

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """Multiplies, and what comes of it with `other`, number by number."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self.weight, self.bias, "mul")  # noqa: SLF001
        return result


class PackedLinear(Rewrite):
    """In place of an `nn.Linear`."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.width = self.in_features = int(linear.in_features)
        self.out_features: int = linear.out_features
        self._dtype = linear.weight.dtype
        self._packed = Packed(linear)

    @property
    def bias(self) -> Tensor | None:
        """The original's."""
        return self._packed.bias

    @property
    def weight(self) -> Tensor:
        """Shape and dtype of the original, for models that ask. NaN, so that whoever computes with it is found out by the proof at load."""
        return torch.full((1, 1), torch.nan, dtype=self._dtype).expand(self.out_features, self.in_features)

    def forward(self, rows: Tensor) -> Tensor:
        """See `nn.Linear`."""
        return self._packed(rows)


def packed(module: nn.Module) -> Iterator[Rewrite]:
    """Offers a packed linear layer for a plain one; not for a subclass, whose forward may do more."""
    if type(module) is nn.Linear:
        yield PackedLinear(module)
