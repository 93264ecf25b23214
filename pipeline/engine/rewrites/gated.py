"""The gated multilayer perceptron, `down(act(gate(x)) * up(x))`."""

from collections.abc import Iterator

from torch import Tensor, nn

from pipeline.engine.rewrites.activation import Activation, Product, activations
from pipeline.engine.rewrites.linear import faster
from pipeline.engine.rewrites.rewrite import Rewrite
from pipeline.engine.rewrites.weight import Weight

LINEARS = ("gate_proj", "up_proj", "down_proj")


class GatedMlp(Rewrite):
    """In place of a module that has nothing but the three linear layers and an activation."""

    def __init__(self, gate: Product, up: Product, down: Product, width: int, activation: Activation):
        super().__init__()
        self.width = width
        self._gate, self._up, self._down = gate, up, down
        self._activation = activation

    def forward(self, rows: Tensor) -> Tensor:
        """Rows in, rows out."""
        return self._down(self._activation(self._gate, self._up, rows))


def gated(module: nn.Module) -> Iterator[Rewrite]:
    """Offers one for each activation."""
    linears = [getattr(module, name, None) for name in LINEARS]
    others = [child for name, child in module.named_children() if name not in LINEARS]
    if all(type(linear) is nn.Linear for linear in linears) and not any(True for child in others for _ in child.parameters()):
        gate, up, down = (faster(Weight.of(linear)) for linear in linears if linear is not None)
        for activation in activations(gate, up, linears[0].weight.dtype):  # type: ignore[union-attr]
            yield GatedMlp(gate, up, down, linears[0].in_features, activation)  # type: ignore[union-attr]
