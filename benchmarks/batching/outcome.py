"""What came of a run: who waited how long, and what was computed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a live request must get to count as good."""

    ttft_s: float
    tpot_s: float


@dataclass(slots=True, eq=False)
class Watched:
    """A request under way. Times are seconds after the start of its run; `due_s` is when it was to be sent, not when somebody took it."""

    due_s: float
    prompt_tokens: int
    first_s: float = math.inf
    last_s: float = math.inf
    tokens: int = 0
    has_ended: bool = False

    @property
    def ttft_s(self) -> float:
        """Time to its first token; infinite where it got none."""
        return self.first_s - self.due_s

    @property
    def tpot_s(self) -> float:
        """Mean time between its tokens."""
        return (self.last_s - self.first_s) / (self.tokens - 1) if self.tokens > 1 else 0.0

    def meets(self, goal: Goal) -> bool:
        """Tells whether it ended, in time and fast enough."""
        return self.has_ended and self.ttft_s <= goal.ttft_s and self.tpot_s <= goal.tpot_s


@dataclass(slots=True)
class Outcome:
    """One or more runs under the same policy. Tokens and seconds are those of the measured part; `live` are the requests that were due in it."""

    seconds: float = 0.0
    live: list[Watched] = field(default_factory=list)
    live_tokens: int = 0
    flex_tokens: int = 0
    prompt_tokens: int = 0
    step_s: list[float] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Takes in another run."""
        self.seconds += other.seconds
        self.live += other.live
        self.live_tokens += other.live_tokens
        self.flex_tokens += other.flex_tokens
        self.prompt_tokens += other.prompt_tokens
        self.step_s += other.step_s

    @property
    def tokens_per_s(self) -> float:
        """Output tokens of both lanes per second."""
        return (self.live_tokens + self.flex_tokens) / self.seconds

    @property
    def flex_tokens_per_s(self) -> float:
        """Output tokens of the backlog per second."""
        return self.flex_tokens / self.seconds

    @property
    def mean_step_s(self) -> float:
        """Mean time of a step that computed something."""
        return sum(self.step_s) / len(self.step_s)

    def ttft_s(self, share: float) -> float:
        """A quantile of the times to first token."""
        return quantile([w.ttft_s for w in self.live], share)

    def tpot_s(self, share: float) -> float:
        """A quantile of the times between tokens, of requests that ended."""
        return quantile([w.tpot_s for w in self.live if w.has_ended and w.tokens > 1], share)

    def goodput_per_s(self, goal: Goal) -> float:
        """Live requests per second that got what they want."""
        return sum(w.meets(goal) for w in self.live) / self.seconds

    def row(self, goal: Goal | None, alone_tokens_per_s: float) -> dict[str, Any]:
        """The figures for a table."""
        return {
            "live": len(self.live),
            "ttft_p50_ms": 1_000 * self.ttft_s(0.5),
            "ttft_p95_ms": 1_000 * self.ttft_s(0.95),
            "ttft_p99_ms": 1_000 * self.ttft_s(0.99),
            "tpot_p95_ms": 1_000 * self.tpot_s(0.95),
            "goodput_per_s": None if goal is None else self.goodput_per_s(goal),
            "flex_tokens_per_s": self.flex_tokens_per_s,
            "tokens_per_s": self.tokens_per_s,
            "of_flex_alone": self.tokens_per_s / alone_tokens_per_s,
        }


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of them do not exceed; not a number where there are none."""
    ranked: Sequence[float] = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else math.nan
