"""When rows from the door wait for live requests: not only behind them in each step, but outside, until the worker has caught up. Pure.

Live requests are those of the log in the lanes above the last. Rows that are in an engine already stay there.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pipeline.delivery.requests import InFlight
from pipeline.scheduling.sequence import Lane

LOOK_S = 0.05
"""How often one looks; a look costs about a tenth of a microsecond for each request."""
CALM_S = 1.0
"""How long there must be no reason any more: what has just caught up falls behind again if all rows come at once."""


class Reason(StrEnum):
    """Why no rows are taken."""

    QUEUE = "queue"
    """As many live requests wait as may, or they wait for as much."""
    FIRST_TOKEN = "first_token"  # noqa: S105 -- of a text
    """One has waited for its first token for longer than the target allows."""


class Waiting(NamedTuple):
    """A live request without its first token: since when, and for how much of a prompt."""

    since_s: float
    tokens: int


def waiting(requests: Iterable[InFlight]) -> Iterator[Waiting]:
    """The live ones among a worker's requests that have no token yet."""
    for inflight in requests:
        if inflight.first_token_s is None and inflight.lane is not Lane.FLEX and not inflight.has_ended:
            yield Waiting(inflight.admitted_s, inflight.job.prompt_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What may wait before rows do. `first_token_s` is None where there is no target."""

    requests: int
    tokens: int
    first_token_s: float | None = None

    def reason(self, waiting: Iterable[Waiting], now_s: float) -> Reason | None:
        """Why rows would wait now, if they would."""
        requests = tokens = 0
        oldest_s = now_s
        for since_s, prompt_tokens in waiting:
            requests, tokens, oldest_s = requests + 1, tokens + prompt_tokens, min(oldest_s, since_s)
        if requests >= self.requests or tokens >= self.tokens:
            return Reason.QUEUE
        is_late = self.first_token_s is not None and now_s - oldest_s > self.first_token_s
        return Reason.FIRST_TOKEN if is_late else None


class Yielding:
    """Remembers why rows wait, until it has been calm for a while.

    Args:
        limits: What may wait.
        live: The live requests that wait now.
    """

    def __init__(self, limits: Limits, live: Callable[[], Iterable[Waiting]]):
        self._limits = limits
        self._live = live
        self._reason: Reason | None = None
        self._seen_s = self._looked_s = float("-inf")

    def look(self, now_s: float) -> Reason | None:
        """Why rows wait, if they do; cheap enough for every step."""
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            if (reason := self._limits.reason(self._live(), now_s)) is not None:
                self._reason, self._seen_s = reason, now_s
            elif now_s - self._seen_s >= CALM_S:
                self._reason = None
        return self._reason
