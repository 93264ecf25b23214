"""Whether a request can still be served in time, and what happens to one that can't. Pure.

Where the policy is to pause, a full queue keeps requests in the log, which loses nothing and answers nobody. Where it is to
refuse, the requester hears at once, and when to come again. Either way the worker goes on polling.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.engine.base import Engine, EngineStats, Job
from pipeline.settings import Overflow
from schemas.errors import Overloaded

HALF_LIFE_S = 10.0
"""Seconds of computing after which a step counts half towards the throughput."""
SHORTEST_RETRY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait in memory."""

    waiting_requests: int
    waiting_tokens: int
    wait_s: float | None = None


@dataclass(slots=True)
class Throughput:
    """Tokens per second of one engine while it computes, older steps counting ever less."""

    tokens: float = 0.0
    seconds: float = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Counts one step."""
        kept = 0.5 ** (seconds / HALF_LIFE_S)
        self.tokens = self.tokens * kept + tokens
        self.seconds = self.seconds * kept + seconds

    @property
    def tokens_per_s(self) -> float | None:
        """The rate; None before the first step."""
        return self.tokens / self.seconds if self.seconds > 0.0 and self.tokens else None


def predicted_wait_s(waiting_tokens: int, tokens_per_s: float | None) -> float:
    """How long until what waits has been read; 0 where nothing is known. What runs shares the steps, and is in the rate."""
    return 0.0 if tokens_per_s is None else waiting_tokens / tokens_per_s


@dataclass(slots=True)
class _Queue:
    """What waits for one engine, with what this poll has added."""

    requests: int
    tokens: int


@dataclass(slots=True, kw_only=True)
class Overload:
    """Watches the queues of all engines against their bounds.

    Attributes:
        bounds: When the queue is full.
        policy: What happens then.
    """

    bounds: Bounds
    policy: Overflow
    _throughputs: dict[str, Throughput] = field(default_factory=dict)
    _queues: dict[str, _Queue] = field(default_factory=dict)

    def note_step(self, model: str, stats: EngineStats, seconds: float) -> None:
        """Learns how fast an engine is."""
        self._throughputs.setdefault(model, Throughput()).note(stats.batch_tokens, seconds)

    def survey(self, engines: Iterable[Engine]) -> None:
        """Reads how much waits; to be called before a poll's requests are judged."""
        for engine in engines:
            stats = engine.stats()
            self._queues[engine.info.name] = _Queue(stats.waiting, stats.waiting_tokens)

    def note_admitted(self, model: str, job: Job) -> None:
        """Counts a request of this poll."""
        queue = self._queues[model]
        queue.requests += 1
        queue.tokens += job.prompt_tokens

    def holds_back(self) -> bool:
        """Tells whether the partitions are to be paused."""
        return self.policy is Overflow.PAUSE and (self._is_full() or any(self._is_slow(self.wait_s(model)) for model in self._queues))

    def refusal(self, model: str, left_s: float | None) -> tuple[str, Overloaded] | None:
        """Says why a request is not taken in, in a word for the metric and to the requester.

        Args:
            model: The model that it asks for.
            left_s: What is left until its deadline.
        """
        if self.policy is not Overflow.REFUSE:
            return None
        wait_s = self.wait_s(model)
        retry_after_s = max(wait_s, SHORTEST_RETRY_S)
        if self._is_full() or self._is_slow(wait_s):
            return "queue", Overloaded(f"the queue is full: try again in {retry_after_s:.3g} s", retry_after_s=retry_after_s)
        if left_s is not None and wait_s > left_s:
            message = f"the first token is {wait_s:.3g} s away, and the deadline {left_s:.3g} s: allow more time"
            return "deadline", Overloaded(message, retry_after_s=retry_after_s)
        return None

    def wait_s(self, model: str) -> float:
        """How long a request that came now would wait for its first token, by prediction."""
        throughput = self._throughputs.get(model)
        return predicted_wait_s(self._queues[model].tokens, None if throughput is None else throughput.tokens_per_s)

    def _is_full(self) -> bool:
        queues = self._queues.values()
        return (
            sum(queue.requests for queue in queues) >= self.bounds.waiting_requests
            or sum(queue.tokens for queue in queues) >= self.bounds.waiting_tokens
        )

    def _is_slow(self, wait_s: float) -> bool:
        return self.bounds.wait_s is not None and wait_s > self.bounds.wait_s
