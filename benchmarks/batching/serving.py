"""One run: arrivals by the clock, a backlog that is kept full, steps until the measured requests have ended. The engine may be real or simulated."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from benchmarks.batching.arrivals import Arrival, Ask
from benchmarks.batching.outcome import Outcome, Watched
from benchmarks.batching.policies.base import Contender
from pipeline.scheduling.explanation import ClosedBatch
from pipeline.scheduling.sequence import Lane

BACKLOG = 2
"""Flex requests under way for each row of the engine: one that runs and one that waits for its place."""
IDLE_S = 0.001
LEAST_IDLE_S = 1e-6
"""Clocks round: a wait always ends later than it began."""
FIRST_IDS = range(10, 1_000)
"""Tokens that the prompts of a run begin with, one for all of them: nobody finds a prompt in a cache because an earlier run had the same."""
_RUNS = count()


class Server(Protocol):
    """An engine with a clock. Times are seconds after the start of a run."""

    def begin(self, contender: Contender) -> None:
        """Starts a run at time 0: nothing is under way, and from now on this contender decides."""
        ...

    def now_s(self) -> float:
        """Reads the clock."""
        ...

    def wait(self, until_s: float) -> None:
        """Lets time pass."""
        ...

    def add(self, key: int, ask: Ask, lane: Lane, arrived_s: float) -> None:
        """Queues a request."""
        ...

    def step(self) -> Iterable[tuple[int, int, bool]] | None:
        """Runs a step: which requests got how many tokens, and whether they ended. None where the policy waits, or nothing is there."""
        ...

    def clear(self) -> None:
        """Drops all requests."""
        ...

    def closed(self) -> Sequence[ClosedBatch]:
        """Explains the last steps of the run."""
        ...

    def slow_down(self, factor: float) -> None:
        """Makes each step take so many times as long, from now on, unbeknown to the policy."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How long a run is: what happens while it settles is not measured; those who arrived in time may end within `grace_s` after it."""

    settle_s: float = 1.0
    measured_s: float = 5.0
    grace_s: float = 5.0

    @property
    def end_s(self) -> float:
        """When the measured part ends."""
        return self.settle_s + self.measured_s


@dataclass(slots=True)
class Run:
    """A run under way."""

    server: Server
    contender: Contender
    span: Span
    arrivals: Sequence[Arrival]
    backlog: Iterator[Ask] | None
    outcome: Outcome = field(default_factory=Outcome)
    _watched: dict[int, Watched] = field(default_factory=dict)
    _flex: set[int] = field(default_factory=set)
    _sent: int = 0
    _keys: int = 0
    _first_id: int = field(default_factory=lambda: FIRST_IDS[next(_RUNS) % len(FIRST_IDS)])
    _began_s: float | None = None

    def go(self) -> Outcome:
        """Runs it."""
        self.server.begin(self.contender)
        while not self._is_over():
            self._send()
            self._step()
        self.server.clear()
        self.outcome.live = [w for w in self._watched.values() if self.span.settle_s <= w.due_s < self.span.end_s]
        return self.outcome

    def _is_over(self) -> bool:
        now_s, span = self.server.now_s(), self.span
        if now_s < span.end_s or (self._sent < len(self.arrivals) and self.arrivals[self._sent].at_s < span.end_s):
            return False
        is_awaited = any(not w.has_ended and span.settle_s <= w.due_s < span.end_s for w in self._watched.values())
        return not is_awaited or now_s >= span.end_s + span.grace_s

    def _send(self) -> None:
        now_s = self.server.now_s()
        while self._sent < len(self.arrivals) and (arrival := self.arrivals[self._sent]).at_s <= now_s:
            self._sent += 1
            key = self._add(arrival.ask, Lane.DEFAULT, arrival.at_s)
            self._watched[key] = Watched(arrival.at_s, len(arrival.ask.prompt_ids))
        if self.backlog is not None:
            while len(self._flex) < BACKLOG * self.contender.most_sequences:
                self._flex.add(self._add(next(self.backlog), Lane.DEFAULT if self.contender.has_one_lane else Lane.FLEX, now_s))

    def _add(self, ask: Ask, lane: Lane, arrived_s: float) -> int:
        self._keys += 1
        own = replace(ask, prompt_ids=(self._first_id, *ask.prompt_ids[1:]))
        self.server.add(self._keys, own, lane, arrived_s)
        return self._keys

    def _step(self) -> None:
        started_s = self.server.now_s()
        outputs = self.server.step()
        now_s = self.server.now_s()
        is_measured = self._began_s is not None and started_s < self.span.end_s
        for key, tokens, has_ended in outputs or ():
            self._note(key, tokens, now_s, has_ended=has_ended, is_measured=is_measured)
        if is_measured and self._began_s is not None:
            self.outcome.seconds = now_s - self._began_s
            if outputs is not None:
                self.outcome.step_s.append(now_s - started_s)
        if outputs is None:
            due_s = self.arrivals[self._sent].at_s if self._sent < len(self.arrivals) else math.inf
            self.server.wait(min(now_s + IDLE_S, max(due_s, now_s + LEAST_IDLE_S)))
        if self._began_s is None and now_s >= self.span.settle_s:
            self._began_s = now_s

    def _note(self, key: int, tokens: int, now_s: float, *, has_ended: bool, is_measured: bool) -> None:
        if (watched := self._watched.get(key)) is not None:
            if not watched.tokens:
                watched.first_s = now_s
            watched.tokens += tokens
            watched.last_s = now_s
            watched.has_ended = has_ended
            self.outcome.live_tokens += tokens * is_measured
        else:
            self.outcome.flex_tokens += tokens * is_measured
            if has_ended:
                self._flex.discard(key)
