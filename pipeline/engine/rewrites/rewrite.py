"""What every substitute has in common, and how it is held against what it replaces."""

import structlog
import torch
from torch import Tensor, nn

from pipeline.engine.rewrites.closeness import are_close

log = structlog.get_logger(__name__)

ROWS = 7


class Rewrite(nn.Module):  # type: ignore[misc]
    """A module that may take another one's place, if it agrees with that.

    Attributes:
        width: Numbers in a row of its input.
    """

    width: int

    @staticmethod
    def ask(module: nn.Module, rows: Tensor) -> Tensor:
        """What a module makes of rows, [1, T, width]; the original and the substitute are asked alike."""
        answer: Tensor = module(rows)
        return answer


def agrees(module: nn.Module, candidate: Rewrite, dtype: torch.dtype) -> bool:
    """Tells whether two modules compute the same from random rows of `candidate.width` numbers, small ones and large ones."""
    rows = torch.randn(1, ROWS, candidate.width, generator=torch.Generator().manual_seed(0))
    rows = (rows * torch.logspace(-3, 1, ROWS)[:, None]).to(dtype)
    expected = candidate.ask(module, rows)
    try:
        got = candidate.ask(candidate, rows)
    except RuntimeError as error:
        log.debug("a rewrite does not run here", rewrite=type(candidate).__name__, error=str(error).splitlines()[0][:200])
        return False
    return are_close(got, expected)
