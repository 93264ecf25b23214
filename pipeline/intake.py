"""Records in: decoded, routed, checked against what is known, and admitted, joined or refused."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from pipeline.answers import Answers
from pipeline.delivery.assignments import Assignments
from pipeline.delivery.cancels import Cancels
from pipeline.delivery.routes import Route
from pipeline.engine.base import Engine, Job
from pipeline.scheduling.sequence import Lane
from pipeline.telemetry import Metrics
from pipeline.transport.base import Consumer, Record
from schemas.codec import Limits, Refusal, decode_requests
from schemas.errors import Cancelled, DeadlineExceeded, DuplicateRequest, EngineError, InvalidRequest, PenstockError, UnauthorizedReply, UnknownModel
from schemas.record import Origin
from schemas.request import Request, ServiceTier

log = structlog.get_logger(__name__)

LANES = {ServiceTier.PRIORITY: Lane.PRIORITY, ServiceTier.DEFAULT: Lane.DEFAULT, ServiceTier.FLEX: Lane.FLEX}
POLL_RECORDS = 64
"""Records per poll: decoding and tokenising that many costs about as much as a step, so running streams do not stall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much may wait in memory; at either bound the partitions pause."""

    waiting_requests: int
    waiting_tokens: int


@dataclass(slots=True, kw_only=True)
class Intake:
    """Pulls records. The log is the queue; what is held here is bounded."""

    consumer: Consumer
    assignments: Assignments
    answers: Answers
    cancels: Cancels
    engines: Mapping[str, Engine]
    limits: Limits
    bounds: Bounds
    metrics: Metrics
    clock_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    is_open: bool = True

    def pull(self, wait_s: float) -> None:
        """Takes what has arrived, waiting up to `wait_s` for it. Polls also when nothing may be taken, since the group wants to see it."""
        self.assignments.hold(everything=not self._has_room())
        for record in self.consumer.poll(wait_s, POLL_RECORDS):
            if self.assignments.owns(record.partition):
                self._take(record)

    def cancel_named(self) -> None:
        """Applies the cancels that have arrived."""
        for name in self.cancels.poll():
            for inflight in self.answers.requests.named(name):
                if self.cancels.holds(name, inflight.request.timestamp_ms):
                    self.answers.cancel(inflight)

    def _has_room(self) -> bool:
        if not self.is_open or self.answers.is_saturated():
            return False
        stats = [engine.stats() for engine in self.engines.values()]
        return sum(s.waiting for s in stats) < self.bounds.waiting_requests and sum(s.waiting_tokens for s in stats) < self.bounds.waiting_tokens

    def _take(self, record: Record) -> None:
        origin = Origin(record.partition.topic, record.partition.number, record.offset)
        items = decode_requests(record.value, record.headers, origin, record.timestamp_ms, self.limits)
        if not self.assignments.ledger(record.partition).receive(record.offset, len(items)):
            return
        self.cancels.cover(record.timestamp_ms)
        tenant = self.answers.routes.tenant(record.partition.topic)
        self.metrics.queue_age.observe(max(0.0, (self.wall_ms() - record.timestamp_ms) / 1000))
        for item in items:
            if isinstance(item, Refusal):
                self.answers.refuse(item, record, tenant)
            else:
                self._admit(item, record, tenant)

    def _admit(self, request: Request, record: Record, tenant: str) -> None:
        try:
            route = self.answers.routes.resolve(request.reply, tenant, self.answers.outbox.producer)
            if self._is_known(request, record, tenant, route):
                return
            engine, job = self._prepare(request, tenant)
        except PenstockError as error:
            is_dead = isinstance(error, (UnauthorizedReply, EngineError))
            self.answers.refuse(Refusal(error=error, origin=request.origin, reply=request.reply, dead_letter=is_dead), record, tenant)
            return
        lane = LANES[request.service_tier]
        left_s = None if request.deadline_ms is None else (request.deadline_ms - self.wall_ms()) / 1000
        if (fault := self._is_late(request, left_s)) is not None:
            self.answers.reject(fault, request, record=record, tenant=tenant, lane=lane, engine=engine, job=job, route=route)
            return
        deadline_s = None if left_s is None else self.clock_s() + left_s
        self.answers.admit(request, record=record, tenant=tenant, lane=lane, engine=engine, job=job, route=route, deadline_s=deadline_s)

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

    def _prepare(self, request: Request, tenant: str) -> tuple[Engine, Job]:
        engine = self.engines.get(request.model)
        if engine is None:
            raise UnknownModel(f"no model of that name here; there is {', '.join(sorted(self.engines))}", param="model")
        try:
            return engine, replace(engine.prepare(request), tenant=tenant)
        except PenstockError:
            raise
        except Exception as error:  # a template or tokenizer that chokes on one input must not take the neighbours along
            log.exception("prepare_failed", origin=str(request.origin))
            raise EngineError(f"the model's tokenizer or template failed on this request ({type(error).__name__})") from error

    def _is_late(self, request: Request, left_s: float | None) -> InvalidRequest | None:
        if self.cancels.holds(request.custom_id, request.timestamp_ms):
            return Cancelled("the request was cancelled")
        if left_s is not None and left_s <= 0.0:
            return DeadlineExceeded("the deadline passed before the request was taken up")
        return None
