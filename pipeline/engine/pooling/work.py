"""What `prepare` makes of a pooled request, and every later stage reads."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.pooled_results import Pooled, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """The ids of one text, or of a pair in one row.

    Attributes:
        token_ids: At least one, with the model's control tokens.
        type_ids: Which text of the pair each token belongs to; empty: all to the first.
    """

    token_ids: tuple[int, ...]
    type_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Tokens."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, eq=False)
class PooledWork:
    """A request validated against the model.

    Attributes:
        texts: What the model reads.
        finish: Makes the answer of the model's rows, one per text in their order.
    """

    texts: tuple[Text, ...]
    finish: Callable[[Rows], Pooled]
