"""What the scheduler keeps of one choice of one request, and the lane that it waits in."""

from array import array
from collections.abc import Iterator
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


@dataclass(slots=True, eq=False)
class Group:
    """The choices of one request: one of them computes the prompt, the others share it.

    Where `scores_prompt`, somebody wants the log-probabilities of the prompt's tokens: those of the first `scored_tokens` places
    are known, and what comes after must be computed, not found.
    """

    members: list["Sequence"]
    scores_prompt: bool = False
    scored_tokens: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """One choice of one request, from its arrival to its end.

    `computed_tokens` of its tokens (prompt, then output) have their keys and values in the blocks of `block_table`. The
    rest is computed next; once nothing is left but the token sampled last, each step computes that one and samples.
    `row` is its place among the running sequences, -1 while it has none. `tenant` is who asked for it: tenants share a lane.
    `reserved_blocks` are those that it is expected to hold in the end. `deadline_s` is when its answer is worth nothing any more.

    `rank` tells who gives way when room is short: the greatest, unless it is the only one. `urgency` is the order within a lane and tenant.

    With a `salt`, full blocks may be found and shared by sequences of the same salt; `pages` are the numbers under which its own,
    from the first on, can be found. One that is not `is_continued` is only read: no token is sampled after it.
    """

    key: int
    index: int = 0
    lane: Lane = Lane.DEFAULT
    tenant: str = ""
    prompt_ids: Tokens[int]
    arrived_s: float = 0.0
    deadline_s: float | None = None
    max_output_tokens: int | None = None
    output_ids: list[int] = field(default_factory=list)
    computed_tokens: int = 0
    block_table: list[int] = field(default_factory=list)
    row: int = -1
    state: State = State.WAITING
    reserved_blocks: int = 0
    rank: tuple[int, float, int] = (0, 0.0, 0)
    urgency: tuple[float, int] = (0.0, 0)
    served_step: int = 0
    first_token_s: float | None = None
    salt: str | None = None
    pages: list[int] = field(default_factory=list)
    group: Group | None = None
    is_continued: bool = True
    _contents: list[bytes] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Prompt and output tokens together."""
        return len(self.prompt_ids) + len(self.output_ids)

    @property
    def pending_tokens(self) -> int:
        """Tokens that must be computed before the next one can be sampled."""
        return len(self.prompt_ids) + len(self.output_ids) - self.computed_tokens

    @property
    def reusable_tokens(self) -> int:
        """Tokens that need not be computed if somebody else has: not the last one, and nothing that is still to be scored."""
        limit = self.tokens - 1
        if self.group is not None and self.group.scores_prompt:
            limit = min(limit, self.group.scored_tokens)
        return limit

    @property
    def unscored_tokens(self) -> int:
        """Places of the prompt whose log-probabilities are wanted and not known. That of the last one is the output's."""
        group = self.group
        return len(self.prompt_ids) - 1 - group.scored_tokens if group is not None and group.scores_prompt else 0

    def donor(self) -> "Sequence | None":
        """Finds another choice of the request that has the whole prompt in its blocks."""
        return next((s for s in self._running_siblings() if s.computed_tokens >= len(self.prompt_ids)), None)

    def awaits_donor(self) -> bool:
        """Tells whether another choice is computing the prompt."""
        return self.group is not None and self.donor() is None and next(self._running_siblings(), None) is not None

    def _running_siblings(self) -> "Iterator[Sequence]":
        members = () if self.group is None else self.group.members
        return (s for s in members if s is not self and s.state is State.RUNNING)

    def first_pages(self, count: int, block_tokens: int) -> Iterator[bytes]:
        """Reads what the first `count` full blocks hold, one by one."""
        return (self.page(number, block_tokens) for number in range(count))

    def page(self, number: int, block_tokens: int) -> bytes:
        """Reads what full block `number` holds; kept, since tokens are only ever added."""
        contents = self._contents
        for known in range(len(contents), number + 1):
            contents.append(array("q", self.token_ids(known * block_tokens, block_tokens)).tobytes())
        return contents[number]

    def token_ids(self, start: int, count: int) -> Tokens[int]:
        """Reads `count` token ids from position `start`, across the border of prompt and output."""
        prompt_tokens, end = len(self.prompt_ids), start + count
        if end <= prompt_tokens:
            return self.prompt_ids[start:end]
        if start >= prompt_tokens:
            return self.output_ids[start - prompt_tokens : end - prompt_tokens]
        return [*self.prompt_ids[start:], *self.output_ids[: end - prompt_tokens]]
