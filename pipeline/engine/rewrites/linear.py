"""Linear layers over weights that lie as they are read: by a kernel of our own, or by oneDNN. Laid out once, not at each call."""

import os
import platform
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.engine.rewrites.rewrite import Rewrite
from pipeline.engine.rewrites.weight import Weight

PRIMITIVES = "192"
"""Products of different sizes that oneDNN keeps prepared, half a MiB each, where it would keep 1,024: six of a model, for the 29 numbers of rows
that `prepared` has up to a step's usual budget, and a few more."""
for _variable in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):  # torch's own cache and the library's; read at the first product
    os.environ.setdefault(_variable, PRIMITIVES)


def can_pack(dtype: torch.dtype, device: torch.device) -> bool:
    """Tells whether packed weights are faster here: measured on x86, where the processor multiplies the dtype itself."""
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


class Packed:
    """One weight with its bias as oneDNN reads it."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: Weight):
        self.bias = weight.bias
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.matrix(), None)  # noqa: SLF001

    def __call__(self, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """Rows, [..., depth], in; [..., width] out, added to `onto`, contiguous."""
        return self.bent(rows) if onto is None else self._with(rows, onto, "add")

    def bent(self, rows: Tensor, by: str = "none", how: str = "") -> Tensor:
        """Multiplies, and applies an elementwise function of oneDNN's to what comes of it."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, by, [], how)  # noqa: SLF001
        return result

    def times(self, rows: Tensor, other: Tensor) -> Tensor:
        """Multiplies, and what comes of it with `other`, number by number."""
        return self._with(rows, other, "mul")

    def _with(self, rows: Tensor, other: Tensor, how: str) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self.weight, self.bias, how)  # noqa: SLF001
        return result


def faster(weight: Weight) -> Weight | Packed:
    """What multiplies rows with a weight in the faster way that there is here."""
    return weight if weight.is_laid_out else Packed(weight)


def can_pack_for_many_rows(dtype: torch.dtype, device: torch.device) -> bool:
    """As `can_pack`, for rows of which there are many: float32 is left to torch, whose library is as fast then and has nothing to prepare."""
    return dtype is not torch.float32 and can_pack(dtype, device)


def for_many_rows(weight: Weight) -> Weight | Packed:
    """As `faster`, for rows of which there are many."""
    if weight.is_laid_out:
        return weight
    matrix = weight.matrix()
    return Packed(weight) if can_pack_for_many_rows(matrix.dtype, matrix.device) else weight


class TiledLinear(Rewrite):
    """In place of an `nn.Linear`, by our own kernel."""

    def __init__(self, linear: nn.Linear, weight: Weight):
        super().__init__()
        self.width = self.in_features = int(linear.in_features)
        self.out_features = int(linear.out_features)
        self._weight = weight

    @property
    def weight(self) -> Tensor:
        """The original's, for models that ask; a copy."""
        return self._weight.matrix()

    @property
    def bias(self) -> Tensor | None:
        """Likewise, as it is."""
        return self._weight.bias

    def forward(self, rows: Tensor) -> Tensor:
        """See `nn.Linear`."""
        return self._weight(rows)


class PackedLinear(Rewrite):
    """In place of an `nn.Linear`, by oneDNN."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.width = self.in_features = int(linear.in_features)
        self.out_features: int = linear.out_features
        self._dtype = linear.weight.dtype
        self._packed = Packed(Weight.of(linear))

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


def tiled_linears(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for a plain linear layer where there is a kernel for it; not for a subclass, whose forward may do more."""
    if type(module) is nn.Linear and (weight := Weight.of(module)).is_laid_out:
        yield TiledLinear(module, weight)


def packed_linears(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for any plain linear layer."""
    if type(module) is nn.Linear:
        yield PackedLinear(module)
