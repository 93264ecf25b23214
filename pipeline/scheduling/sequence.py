"""What the scheduler keeps of one choice of one request, and the lane that it waits in."""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Lane(IntEnum):
    """Order of service, by `service_tier`: a lower number goes first."""

    PRIORITY = 0
    DEFAULT = 1
    FLEX = 2


class State(Enum):
    """Where a sequence stands. A preempted sequence is WAITING again."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One choice of one request, from its arrival to its end.

    `computed_tokens` of its tokens (prompt, then output) have their keys and values in the blocks of `block_table`. The
    rest is computed next; once nothing is left but the token sampled last, each step computes that one and samples.
    `row` is its place among the running sequences, -1 while it has none.
    """

    key: int
    index: int = 0
    lane: Lane = Lane.DEFAULT
    prompt_ids: Tokens[int]
    arrived_s: float = 0.0
    output_ids: list[int] = field(default_factory=list)
    computed_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    row: int = -1
    state: State = State.WAITING
    rank: tuple[int, float, int] = (0, 0.0, 0)

    @property
    def tokens(self) -> int:
        """Prompt and output tokens together."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def pending_tokens(self) -> int:
        """Tokens that must be computed before the next one can be sampled."""
        return len(self.prompt_ids) + len(self.output_ids) - self.computed_tokens

    def token_ids(self, start: int, count: int) -> Tokens[int]:
        """Reads `count` token ids from position `start`, across the border of prompt and output."""
        prompt_tokens, end = len(self.prompt_ids), start + count
        if end <= prompt_tokens:
            return self.prompt_ids[start:end]
        if start >= prompt_tokens:
            return self.output_ids[start - prompt_tokens : end - prompt_tokens]
        return [*self.prompt_ids[start:], *self.output_ids[: end - prompt_tokens]]
