"""Faults inside the forward pass of a model that an engine serves."""

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor


def network_of(engine: Any) -> Any:
    """The model that an engine runs."""
    return engine._execution.runner._model


class Fault:
    """Makes an engine's model fail in each forward whose input ids `strikes` tells; with an id in place of that, whenever it is in the batch."""

    def __init__(self, engine: Any, strikes: Callable[[Tensor], bool] | int, error: BaseException):
        self._network = network_of(engine)
        self._forward = self._network.forward
        self._strikes = strikes if callable(strikes) else lambda ids: bool((ids == strikes).any())
        self._error = error
        self.struck = 0

    def __enter__(self) -> Self:
        self._network.forward = self
        return self

    def __exit__(self, *_: object) -> None:
        del self._network.forward

    def __call__(self, input_ids: Tensor, **rest: Any) -> Any:
        if self._strikes(input_ids):
            self.struck += 1
            raise self._error
        return self._forward(input_ids=input_ids, **rest)
