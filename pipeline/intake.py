"""Records in: decoded, routed, checked against what is known, and admitted, joined or refused."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from pipeline.admission import Admission
from pipeline.answers import Answers
from pipeline.candidate import Candidate
from pipeline.delivery.assignments import Assignments
from pipeline.delivery.cancels import Cancels
from pipeline.delivery.requests import Arrival
from pipeline.delivery.routes import Route
from pipeline.engine.base import Engine, Job
from pipeline.response_cache import Stored, cache_key
from pipeline.scheduling.transit import Transit
from pipeline.telemetry import Metrics
from pipeline.transport.base import Consumer, Record
from schemas.codec import Limits, Refusal, decode_requests
from schemas.errors import DuplicateRequest, EngineError, PenstockError, UnauthorizedReply, UnknownModel
from schemas.record import Origin
from schemas.request import Request

log = structlog.get_logger(__name__)

POLL_RECORDS = 64
"""Records per poll: decoding and tokenising that many costs about as much as a step, so running streams do not stall."""
REFUSED_TOGETHER, REFUSING_S = 8, 0.01
"""Records of tenants above their rate that are refused together, since that costs less, and the longest time for it: first tokens come after
them, in the producer and with whoever reads."""
CALM_S = 1.0
"""After so long without a request of anybody else there is as much time for them as they take."""
NOTHING = Job(prompt_tokens=0, max_output_tokens=0, choices=1, work=None)
"""What is known of a request that is turned away before it was looked at."""


@dataclass(slots=True, kw_only=True)
class Intake:
    """Pulls records. The log is the queue; what is held here is bounded."""

    consumer: Consumer
    assignments: Assignments
    answers: Answers
    admission: Admission
    cancels: Cancels
    engines: Mapping[str, Engine]
    limits: Limits
    metrics: Metrics
    transit: Transit
    refusals_per_s: float
    """Refusals of tenants above their rates, while others have requests: each costs the worker, its producer and the log."""
    clock_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    is_open: bool = True
    _polled_s: float | None = None
    """When the last poll returned: what comes with the next one arrives after it, or was held back in the log."""
    _aside: deque[tuple[Record, Arrival, int]] = field(default_factory=deque)
    """Records that would be refused for their tenants' rates, with the epochs of their partitions, which pause meanwhile: a poll's, at most."""
    _refusals: float = 0.0
    """How many of them may be refused, as time has passed."""
    _taken_s: float = -math.inf
    """When a record was last taken without having been set aside."""
    _candidates: list[Candidate] = field(default_factory=list)
    _names: set[tuple[str, str]] = field(default_factory=set)

    def pull(self, wait_s: float) -> None:
        """Takes what has arrived, waiting up to `wait_s` for it. Polls also when nothing may be taken, since the group wants to see it."""
        self.admission.overload.survey(self.engines.values())
        self.assignments.hold(everything=not self._has_room(), besides={record.partition for record, _, _ in self._aside})
        looked_s = self.clock_s()
        records = self.consumer.poll(min(wait_s, REFUSING_S) if self._aside else wait_s, POLL_RECORDS)
        polled_s, polled_ms = self.clock_s(), self.wall_ms()
        before_s = looked_s if self._polled_s is None else self._polled_s
        longest_s = polled_s - before_s
        for record in records:
            if self.assignments.owns(record.partition):
                log_s = max((polled_ms - record.timestamp_ms) / 1000, 0.0)
                waited_s = min(max(log_s - self.transit.inbound_s, 0.0), longest_s)  # by a foreign clock, so within what is possible here
                self._take_or_set_aside(record, Arrival(polled_s - waited_s, polled_s, log_s, looked_s - before_s))
        self._polled_s = polled_s
        self._decide()
        if self._has_room():
            self._work_off(longest_s)

    def cancel_named(self) -> None:
        """Applies the cancels that have arrived."""
        for name in self.cancels.poll():
            for inflight in self.answers.requests.named(name):
                if self.cancels.holds(name, inflight.request.timestamp_ms):
                    self.answers.cancel(inflight)

    def _has_room(self) -> bool:
        return self.is_open and not self.answers.is_saturated() and not self.admission.overload.holds_back()

    def _take_or_set_aside(self, record: Record, arrival: Arrival) -> None:
        """Sets aside what can only be refused, and what comes after it in its partition; others do not wait for that."""
        is_next = all(earlier.partition != record.partition for earlier, _, _ in self._aside)
        if is_next and not self._is_above_its_rate(record):
            self._taken_s = arrival.polled_s
            self._take(record, arrival)
        else:
            self._aside.append((record, arrival, self.answers.epoch(record.partition)))

    def _work_off(self, past_s: float) -> None:
        """Takes what was set aside: as much as may be refused, together, and those that would not be refused any more.

        Args:
            past_s: How much time has passed since the last call.
        """
        self._refusals = self._refusals + self.refusals_per_s * past_s if self._aside else 0.0
        now_s = self.clock_s()
        is_calm = now_s - self._taken_s > CALM_S and not any(engine.has_work() for engine in self.engines.values())
        is_due = self._refusals >= min(len(self._aside), REFUSED_TOGETHER)
        refusals, until_s = math.inf if is_calm else self._refusals if is_due else 0.0, now_s + REFUSING_S
        while self._aside and (not self._is_above_its_rate(self._aside[0][0]) or (refusals >= 1.0 and self.clock_s() < until_s)):
            record, arrival, epoch = self._aside.popleft()
            refusals, self._refusals = refusals - 1.0, max(self._refusals - 1.0, 0.0)
            if self.assignments.owns(record.partition) and self.answers.epoch(record.partition) == epoch:  # else it will be fetched again
                self._take(record, arrival)
                self._decide()  # each by itself: what one takes of the rate, the next one may lack

    def _is_above_its_rate(self, record: Record) -> bool:
        return self.admission.quotas.blocks(self.answers.routes.tenant(record.partition.topic), self.clock_s())

    def _take(self, record: Record, arrival: Arrival) -> None:
        origin = Origin(record.partition.topic, record.partition.number, record.offset)
        items = decode_requests(record.value, record.headers, origin, record.timestamp_ms, self.limits)
        if not self.assignments.ledger(record.partition).receive(record.offset, len(items)):
            return
        self.cancels.cover(record.timestamp_ms)
        tenant = self.answers.routes.tenant(record.partition.topic)
        self.metrics.queue_age.observe(arrival.log_s)
        for item in items:
            if isinstance(item, Refusal):
                self.answers.refuse(item, record, tenant)
            else:
                self._consider(item, record, tenant, arrival)

    def _decide(self) -> None:
        if self._candidates:
            candidates, self._candidates = self._candidates, []
            self._names.clear()
            self.admission.decide(candidates)

    def _consider(self, request: Request, record: Record, tenant: str, arrival: Arrival) -> None:
        if (tenant, request.custom_id) in self._names:  # its twin is before it in this poll
            self._decide()
        try:
            route = self.answers.routes.resolve(request.reply, tenant, self.answers.outbox.producer)
            if self._is_known(request, record, tenant, route):
                return
            candidate = self._candidate(request, record, tenant, route, arrival)
        except PenstockError as error:
            is_dead = isinstance(error, (UnauthorizedReply, EngineError))
            self.answers.refuse(Refusal(error=error, origin=request.origin, reply=request.reply, dead_letter=is_dead), record, tenant)
            return
        if candidate is not None:
            self._candidates.append(candidate)
            self._names.add(candidate.identity)

    def _is_known(self, request: Request, record: Record, tenant: str, route: Route) -> bool:
        """Joins a request to its twin: the same name and reply address are one request, sent twice."""
        identity = (tenant, request.custom_id)
        requests = self.answers.requests
        if (running := requests.running(identity)) is not None:
            if running.route.partition != route.partition:
                raise DuplicateRequest("a request with this custom_id is running with another reply address", param="custom_id")
            running.joined.append(request.origin)
            return True
        if (answered := requests.answered(identity, self.clock_s())) is not None:
            if answered.route.partition != route.partition:
                raise DuplicateRequest("a request with this custom_id was answered a moment ago at another reply address", param="custom_id")
            self.assignments.ledger(record.partition).done(record.offset)
            return True
        return False

    def _candidate(self, request: Request, record: Record, tenant: str, route: Route, arrival: Arrival) -> Candidate | None:
        """Makes a request ready, the cheapest question first; None where it was turned away."""
        engine = self.engines.get(request.model)
        if engine is None:
            raise UnknownModel(f"no model of that name here; there is {', '.join(sorted(self.engines))}", param="model")
        if (blocked := self.admission.quotas.blocked(tenant, self.clock_s())) is not None:
            self.answers.reject(
                blocked, Candidate(request=request, record=record, tenant=tenant, engine=engine, job=NOTHING, route=route, arrival=arrival)
            )
            return None
        key, stored = self._find_answer(request, tenant, engine)
        job = self._prepare(request, tenant, engine) if stored is None else stored.job
        return Candidate(
            request=request, record=record, tenant=tenant, engine=engine, job=job, route=route, arrival=arrival, stored=stored, cache_key=key
        )

    def _find_answer(self, request: Request, tenant: str, engine: Engine) -> tuple[bytes | None, Stored | None]:
        cache = self.answers.cache
        key = None if cache is None else cache_key(request, tenant, engine.info)
        if cache is None or key is None:
            return None, None
        stored = cache.get(key, self.clock_s())
        self.metrics.cache_lookups.labels("miss" if stored is None else "hit").inc()
        return key, stored

    def _prepare(self, request: Request, tenant: str, engine: Engine) -> Job:
        try:
            return replace(engine.prepare(request), tenant=tenant)
        except PenstockError:
            raise
        except Exception as error:  # a template or tokenizer that chokes on one input must not take the neighbours along
            log.exception("prepare_failed", origin=str(request.origin))
            raise EngineError(f"the model's tokenizer or template failed on this request ({type(error).__name__})") from error
