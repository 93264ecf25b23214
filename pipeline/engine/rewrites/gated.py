"""The gated multilayer perceptron, `down(act(gate(x)) * up(x))`."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from pipeline.engine.rewrites.activation import Product, activations, tiled
from pipeline.engine.rewrites.linear import Packed, faster
from pipeline.engine.rewrites.rewrite import Rewrite
from pipeline.engine.rewrites.weight import Weight

LINEARS = ("gate_proj", "up_proj", "down_proj")


class GatedMlp(Rewrite):
    """In place of a module that has nothing but the three linear layers and an activation."""

    def __init__(self, gated: Product, down: Weight | Packed, width: int):
        super().__init__()
        self.width = width
        self._gated, self._down = gated, down

    def forward(self, rows: Tensor, onto: Tensor | None = None) -> Tensor:
        """Rows in, rows out, added to `onto`."""
        return self._down(self._gated(rows), onto)


def gated(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for each activation."""
    linears: list[Any] = [getattr(module, name, None) for name in LINEARS]
    others = [child for name, child in module.named_children() if name not in LINEARS]
    if all(type(linear) is nn.Linear for linear in linears) and not any(True for child in others for _ in child.parameters()):
        gate, up, down = linears
        product = faster(Weight.of(down))
        for gating in _gatings(gate, up):
            yield GatedMlp(gating, product, gate.in_features)


def _gatings(gate: nn.Linear, up: nn.Linear) -> Iterator[Product]:
    """The faster ones first; weights are laid out for one only when those before it did not do."""
    yield from tiled(gate, up)
    products = faster(Weight.of(gate)), faster(Weight.of(up))
    for activation in activations(*products, gate.weight.dtype):
        yield partial(activation, *products)
