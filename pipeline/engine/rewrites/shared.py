"""Linear layers that read the same rows, as one product: a wide one is faster than narrow ones."""

import torch
from torch import Tensor, nn

from pipeline.engine.rewrites.linear import for_many_rows
from pipeline.engine.rewrites.rewrite import Rewrite, agrees
from pipeline.engine.rewrites.weight import Weight

NAMES = ("query", "key", "value")


class _Product:
    """What several layers make of rows, computed when the first of them is asked and kept until the last one was."""

    def __init__(self, linears: list[nn.Linear]):
        self._product = for_many_rows(Weight.of(*linears))
        self._widths = [linear.out_features for linear in linears]
        self._rows: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def part(self, number: int, rows: Tensor) -> Tensor:
        """One layer's share, a view of the whole."""
        if rows is not self._rows or number not in self._parts:
            self._rows = rows
            self._parts = dict(enumerate(self._product(rows).split(self._widths, -1)))
        part = self._parts.pop(number)
        if not self._parts:
            self._rows = None
        return part


class SharedLinear(Rewrite):
    """In place of one of the linear layers."""

    def __init__(self, product: _Product, number: int, width: int):
        super().__init__()
        self.width = width
        self._product, self._number = product, number

    def forward(self, rows: Tensor) -> Tensor:
        """See `nn.Linear`; what comes is not contiguous."""
        return self._product.part(self._number, rows)


def share(network: nn.Module, dtype: torch.dtype) -> int:
    """Has queries, keys and values of each layer share a product.

    Returns:
        How many layers do.
    """
    found = [module for module in network.modules() if _may_share(module)]
    return sum(_shares(module, dtype) for module in found)


def _may_share(module: nn.Module) -> bool:
    linears = [getattr(module, name, None) for name in NAMES]
    are_plain = all(type(linear) is nn.Linear and linear is not None and linear.bias is not None for linear in linears)
    return are_plain and len({getattr(linear, "in_features", None) for linear in linears}) == 1


def _shares(module: nn.Module, dtype: torch.dtype) -> bool:
    linears = {name: getattr(module, name) for name in NAMES}
    product = _Product(list(linears.values()))
    parts = {name: SharedLinear(product, number, linear.in_features) for number, (name, linear) in enumerate(linears.items())}
    if not all(agrees(linears[name], parts[name], dtype) for name in NAMES):
        return False
    for name, part in parts.items():
        setattr(module, name, part)
    return True
