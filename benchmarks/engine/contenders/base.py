"""What every contender can do, and the loop of those that are stepped."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.engine.loads import Ask
from benchmarks.engine.measured import Clock, Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a contender is started with. `max_tokens_each` bounds one request's prompt and output, `max_tokens_all` those of all at once."""

    folder: str
    dtype: str
    threads: int
    max_sequences: int
    max_tokens_each: int
    max_tokens_all: int


class Contender(Protocol):
    """A loaded and warm engine."""

    def run(self, asks: Sequence[Ask], concurrent: int) -> Measured:
        """Serves the requests, at most `concurrent` at a time."""
        ...


class Stepped(Protocol):
    """An engine that computes when it is told to."""

    def add(self, index: int, ask: Ask) -> None:
        """Hands a request over."""
        ...

    def step(self) -> Iterable[tuple[int, int, bool]]:
        """Runs one step: which requests got how many tokens, and whether they ended."""
        ...


def drive(engine: Stepped, asks: Sequence[Ask], concurrent: int) -> Measured:
    """The plain loop: fill up, step, note."""
    clock = Clock()
    sent = running = 0
    while sent < len(asks) or running:
        while sent < len(asks) and running < concurrent:
            clock.sends(sent)
            engine.add(sent, asks[sent])
            sent, running = sent + 1, running + 1
        started_s = time.perf_counter()
        outputs = engine.step()
        clock.step_s.append(time.perf_counter() - started_s)
        for index, tokens, has_ended in outputs:
            clock.gets(index, tokens)
            running -= has_ended
    return clock.measured()
