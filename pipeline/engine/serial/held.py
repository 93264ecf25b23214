"""What a model keeps of a sequence that runs by itself, in bytes."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn


class Held(NamedTuple):
    """Bytes of one sequence: some however long it is, and some for each of its tokens."""

    fixed: int
    per_token: int

    def of(self, tokens: int) -> int:
        """Of a sequence of that length."""
        return self.fixed + self.per_token * tokens

    @classmethod
    def between(cls, short: tuple[int, int], long: tuple[int, int]) -> "Held":
        """From two measurements, (tokens, bytes)."""
        (few, less), (many, more) = short, long
        per_token = max(-(-(more - less) // (many - few)), 0) if many > few else 0
        return cls(max(less - per_token * few, 0), per_token)


def held_bytes(kept: Any) -> int:
    """Counts every tensor in what a model keeps, whatever it is made of; each once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(kept, {}).values())


def _tensors(kept: Any, seen: dict[int, Any]) -> dict[int, Tensor]:
    if id(kept) in seen or isinstance(kept, nn.Module):
        return {}
    seen[id(kept)] = kept
    if isinstance(kept, Tensor):
        return {id(kept): kept}
    parts: Iterable[Any] = ()
    if isinstance(kept, Mapping):
        parts = kept.values()
    elif isinstance(kept, list | tuple):
        parts = kept
    elif hasattr(kept, "__dict__"):
        parts = list(vars(kept).values())
    return {name: tensor for part in parts for name, tensor in _tensors(part, seen).items()}
