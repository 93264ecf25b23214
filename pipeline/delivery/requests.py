"""Every request that this worker has taken and not yet answered, and for a while those that it has. Pure.

A request lives here from admission until the log has acknowledged its last word; only then is its offset done.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.delivery.answer import Answer
from pipeline.delivery.outbox import Channel
from pipeline.delivery.routes import Route
from pipeline.engine.base import Engine, Job, RequestKey
from pipeline.quota.quotas import Reservation
from pipeline.response_cache import Recording
from pipeline.scheduling.sequence import Lane
from pipeline.transport.base import Partition, Record
from schemas.events import FinishReason
from schemas.record import Origin
from schemas.request import Request

Identity = tuple[str, str]
"""Tenant and `custom_id`."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a record came, on the monotonic clock.

    Attributes:
        arrived_s: When it came into the reach of this worker: perhaps in the middle of the step before.
        polled_s: When a poll brought it.
        log_s: How long before that it was written, by the log's clock.
        unwatched_s: How long nobody had looked for records before that poll.
    """

    arrived_s: float
    polled_s: float
    log_s: float
    unwatched_s: float


@dataclass(slots=True, kw_only=True)
class InFlight:
    """One request between its record and the acknowledgement of its last word.

    `reservation` is what its tenant's rate was charged, until it is settled; `recording` listens where the answer is to be kept.

    `outcome` is set from the last word on, a finish reason or an error code: the engine knows nothing of the request any
    more, the log not yet all.
    """

    key: RequestKey
    request: Request
    record: Record
    tenant: str
    lane: Lane
    engine: Engine
    job: Job
    route: Route
    channel: Channel
    arrival: Arrival
    admitted_s: float
    answer: Answer
    open_choices: int
    deadline_s: float | None = None
    first_token_s: float | None = None
    output_tokens: int = 0
    attempts: int = 1
    reservation: Reservation | None = None
    recording: Recording | None = None
    outcome: str | None = None
    joined: list[Origin] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        """What a second request with the same name is measured against."""
        return (self.tenant, self.request.custom_id)

    @property
    def has_ended(self) -> bool:
        """Tells whether the last word was said."""
        return self.outcome is not None

    @property
    def has_failed(self) -> bool:
        """Tells whether the last word was an error."""
        return self.outcome is not None and self.outcome not in set(FinishReason)

    @property
    def partition(self) -> Partition:
        """The partition that the request came from."""
        return self.record.partition


@dataclass(frozen=True, slots=True)
class Answered:
    """What is remembered of a request that was answered."""

    route: Route
    at_s: float


class Requests:
    """The registry. One owner, the worker's loop."""

    def __init__(self, duplicate_window_s: float):
        self._window_s = duplicate_window_s
        self._by_key: dict[RequestKey, InFlight] = {}
        self._by_identity: dict[Identity, InFlight] = {}
        self._answered: OrderedDict[Identity, Answered] = OrderedDict()
        self._deadlines: list[tuple[float, RequestKey]] = []

    def __len__(self) -> int:
        """How many requests are not yet answered."""
        return len(self._by_key)

    def __iter__(self) -> Iterator[InFlight]:
        """The requests, in the order of their admission; safe against changes meanwhile."""
        return iter(tuple(self._by_key.values()))

    def get(self, key: RequestKey) -> InFlight | None:
        """The request of that key, while it lives."""
        return self._by_key.get(key)

    def add(self, request: InFlight) -> None:
        """Takes a request in."""
        self._by_key[request.key] = request
        self._by_identity[request.identity] = request
        if request.deadline_s is not None:
            heapq.heappush(self._deadlines, (request.deadline_s, request.key))

    def running(self, identity: Identity) -> InFlight | None:
        """The unanswered request of that name; one that has failed is no twin of a new one."""
        request = self._by_identity.get(identity)
        return None if request is None or request.has_failed else request

    def named(self, custom_id: str) -> list[InFlight]:
        """The unanswered requests of that `custom_id`, whatever their tenant."""
        return [request for (_, name), request in self._by_identity.items() if name == custom_id]

    def answered(self, identity: Identity, now_s: float) -> Answered | None:
        """The request of that name that was answered within the window."""
        while self._answered:
            oldest = next(iter(self._answered))
            if now_s - self._answered[oldest].at_s <= self._window_s:
                break
            del self._answered[oldest]
        return self._answered.get(identity)

    def settle(self, key: RequestKey, now_s: float) -> None:
        """Notes that the last word was acknowledged. A request that went well is remembered; one that failed may be sent again."""
        request = self.drop(key)
        if self._window_s > 0.0 and not request.has_failed:
            self._answered[request.identity] = Answered(request.route, now_s)
            self._answered.move_to_end(request.identity)

    def drop(self, key: RequestKey) -> InFlight:
        """Forgets a request without an answer: another worker will give it."""
        request = self._by_key.pop(key)
        if self._by_identity.get(request.identity) is request:
            del self._by_identity[request.identity]
        return request

    def expired(self, now_s: float) -> list[InFlight]:
        """Takes those whose deadline has passed and that have not ended."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            _, key = heapq.heappop(self._deadlines)
            request = self._by_key.get(key)
            if request is not None and not request.has_ended:
                late.append(request)
        return late
