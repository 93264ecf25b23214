"""The root-mean-square norm as one of torch's own operations, not six."""

from collections.abc import Iterator

import torch.nn.functional as F  # noqa: N812 -- torch's own convention
from torch import Tensor, nn

from pipeline.engine.rewrites.rewrite import Rewrite


class RmsNorm(Rewrite):
    """In place of a module that has nothing but a weight."""

    def __init__(self, weight: Tensor, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.width = weight.numel()
        self.variance_epsilon = epsilon

    def forward(self, rows: Tensor) -> Tensor:
        """Rows in, rows out."""
        return F.rms_norm(rows, (self.width,), self.weight, self.variance_epsilon)


def norms(module: nn.Module) -> Iterator[Rewrite]:
    """Offers two: some models keep the weight less one."""
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() == 1 and isinstance(epsilon, float) and len(list(module.parameters())) == 1:
        yield RmsNorm(weight.detach(), epsilon)
        yield RmsNorm((1.0 + weight.detach().float()).to(weight.dtype), epsilon)
