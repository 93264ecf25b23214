"""Which texts go into the next step. Pure: no tensors, no clock.

A lane is served before the next one. Within a lane the requests take turns, a text each, so that one request of two thousand
texts does not hold up those that come after it.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.engine.base import RequestKey
from pipeline.engine.pooling.work import PooledWork, Text
from pipeline.scheduling.sequence import Lane
from schemas.pooled_results import Rows


@dataclass(slots=True, eq=False)
class Pending:
    """One request on its way through the steps.

    Attributes:
        arrived_s: When it came, by the monotonic clock.
        rows: What is known of its texts, by number.
        taken: How many of its texts have been in a step.
        tokens: Tokens of those that have not.
    """

    key: RequestKey
    lane: Lane
    work: PooledWork
    arrived_s: float = 0.0
    rows: dict[int, Rows] = field(default_factory=dict)
    taken: int = 0
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        """Counts."""
        self.tokens = sum(map(len, self.work.texts))

    @property
    def next_tokens(self) -> int:
        """Tokens of the text that is next in turn."""
        return len(self.work.texts[self.taken])

    @property
    def is_taken(self) -> bool:
        """Tells whether every text has been in a step."""
        return self.taken == len(self.work.texts)

    @property
    def is_read(self) -> bool:
        """Tells whether every text has its row."""
        return len(self.rows) == len(self.work.texts)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One text of one request in a step."""

    pending: Pending
    index: int

    @property
    def text(self) -> Text:
        """The text."""
        return self.pending.work.texts[self.index]


class Turns:
    """The texts that wait. A request leaves when its last text is taken.

    Attributes:
        tokens: Tokens of all texts that wait.
        untouched: Requests of which no text was taken yet.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, deque[Pending]] = {lane: deque() for lane in sorted(Lane)}
        self.tokens = 0
        self.untouched = 0

    def __len__(self) -> int:
        """Requests with texts that wait."""
        return sum(map(len, self._lanes.values()))

    def add(self, pending: Pending) -> None:
        """Puts a request at the end of its lane."""
        self._lanes[pending.lane].append(pending)
        self.tokens += pending.tokens
        self.untouched += 1

    def drop(self, pending: Pending) -> None:
        """Takes a request out, if it is in."""
        lane = self._lanes[pending.lane]
        if pending in lane:
            lane.remove(pending)
            self.tokens -= pending.tokens
            self.untouched -= pending.taken == 0

    def take(self, budget_tokens: int) -> list[Place]:
        """Takes texts of together at most `budget_tokens`; a longer one goes alone. Nobody is passed by for being long."""
        places: list[Place] = []
        left_tokens = budget_tokens
        for lane in self._lanes.values():
            while lane:
                pending = lane[0]
                tokens = pending.next_tokens
                if places and tokens > left_tokens:
                    return places
                places.append(Place(pending, pending.taken))
                left_tokens -= tokens
                self.tokens -= tokens
                self.untouched -= pending.taken == 0
                pending.taken += 1
                pending.tokens -= tokens
                lane.rotate(-1)
                if pending.is_taken:
                    lane.pop()
        return places
