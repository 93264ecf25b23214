"""How requests arrive: so many in all, at most so many at a time; where one ends, the next one is sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A closed loop of `count` requests, `concurrent` of them under way."""

    concurrent: int
    count: int

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.count} at once" if self.count == self.concurrent else f"{self.count}, {self.concurrent} at a time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, as every contender gets it: greedy, past any end-of-sequence token."""

    prompt_ids: tuple[int, ...]
    max_tokens: int


def loads(concurrencies: Sequence[int], count: int) -> list[Load]:
    """One load for each: two waves of it, at least 4 and at most `count` requests."""
    return [Load(concurrent=min(n, count), count=min(count, max(4, 2 * n))) for n in concurrencies]


def asks(load: Load) -> list[Ask]:
    """The requests of a load: the first ones of the workload that all benchmarks share."""
    lines = Workload(count=load.count).lines("model", "engine")
    return [Ask(prompt_ids=tuple(line["body"]["prompt"]), max_tokens=line["body"]["max_tokens"]) for line in lines]
