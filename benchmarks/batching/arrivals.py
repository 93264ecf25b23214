"""What arrives: live requests by the clock, with bursts, and a backlog of flex requests that never ends. Seeded: every policy gets the same."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

BURST_FACTOR = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One request: greedy, to its last token."""

    prompt_ids: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A live request and when it is sent, in seconds after the start, whether or not anybody is ready for it."""

    at_s: float
    ask: Ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Log-normal lengths of prompts and outputs, between a least and a most."""

    prompt_median: float = 48.0
    output_median: float = 32.0
    sigma: float = 0.6
    least: int = 4
    most: int = 256
    vocabulary: int = 1_000

    def draw(self, source: random.Random) -> Ask:
        """Draws a request."""
        prompt_tokens = self._length(source, self.prompt_median)
        return Ask(tuple(source.choices(range(10, self.vocabulary), k=prompt_tokens)), self._length(source, self.output_median))

    @property
    def output_mean(self) -> float:
        """Tokens of a mean output, but for the bounds."""
        return self.output_median * math.exp(self.sigma**2 / 2)

    def _length(self, source: random.Random, median: float) -> int:
        return min(max(round(source.lognormvariate(math.log(median), self.sigma)), self.least), self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Poisson arrivals of a mean rate; in each period there is a burst, somewhere, in which they come ten times as fast as outside."""

    per_s: float
    period_s: float = 5.0
    burst_s: float = 0.5

    def starts(self, seconds: float, source: random.Random) -> list[float]:
        """Places one burst in each period."""
        periods = math.ceil(seconds / self.period_s)
        return [number * self.period_s + source.uniform(0.0, self.period_s - self.burst_s) for number in range(periods)]

    def times(self, seconds: float, starts: list[float], source: random.Random) -> Iterator[float]:
        """Draws arrivals by thinning those of the greatest rate."""
        share = self.burst_s / self.period_s
        calm_per_s = self.per_s / (1.0 - share + BURST_FACTOR * share)
        at_s = source.expovariate(calm_per_s * BURST_FACTOR)
        while at_s < seconds:
            if any(start <= at_s < start + self.burst_s for start in starts) or source.random() < 1.0 / BURST_FACTOR:
                yield at_s
            at_s += source.expovariate(calm_per_s * BURST_FACTOR)


def live(lengths: Lengths, bursts: Bursts, seconds: float, seed: int) -> list[Arrival]:
    """Draws the live requests of a run."""
    source = random.Random(f"live {seed}")  # noqa: S311 -- a workload, not a secret
    starts = bursts.starts(seconds, source)
    return [Arrival(at_s, lengths.draw(source)) for at_s in bursts.times(seconds, starts, source)]


def flex(lengths: Lengths, seed: int) -> Iterator[Ask]:
    """Draws requests of the backlog, as many as are wanted."""
    source = random.Random(f"flex {seed}")  # noqa: S311 -- likewise
    while True:
        yield lengths.draw(source)
