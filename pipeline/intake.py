"""Records in: decoded, routed, checked against what is known, and admitted, joined or refused."""

import time
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
from pipeline.telemetry import Metrics
from pipeline.transport.base import Consumer, Record
from schemas.codec import Limits, Refusal, decode_requests
from schemas.errors import DuplicateRequest, EngineError, PenstockError, UnauthorizedReply, UnknownModel
from schemas.record import Origin
from schemas.request import Request

log = structlog.get_logger(__name__)

POLL_RECORDS = 64
"""Records per poll: decoding and tokenising that many costs about as much as a step, so running streams do not stall."""
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
    clock_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    is_open: bool = True
    _polled_s: float | None = None
    """When the last poll returned: what comes with the next one arrives after it, or was held back in the log."""
    _candidates: list[Candidate] = field(default_factory=list)
    _names: set[tuple[str, str]] = field(default_factory=set)

    def pull(self, wait_s: float) -> None:
        """Takes what has arrived, waiting up to `wait_s` for it. Polls also when nothing may be taken, since the group wants to see it."""
        self.admission.overload.survey(self.engines.values())
        self.assignments.hold(everything=not self._has_room())
        records = self.consumer.poll(wait_s, POLL_RECORDS)
        polled_s, polled_ms = self.clock_s(), self.wall_ms()
        longest_s = 0.0 if self._polled_s is None else polled_s - self._polled_s
        for record in records:
            if self.assignments.owns(record.partition):
                log_s = max((polled_ms - record.timestamp_ms) / 1000, 0.0)
                arrived_s = polled_s - min(log_s, longest_s)  # by a foreign clock, so within what is possible here
                self._take(record, Arrival(arrived_s, polled_s, log_s))
        self._polled_s = polled_s
        self._decide()

    def cancel_named(self) -> None:
        """Applies the cancels that have arrived."""
        for name in self.cancels.poll():
            for inflight in self.answers.requests.named(name):
                if self.cancels.holds(name, inflight.request.timestamp_ms):
                    self.answers.cancel(inflight)

    def _has_room(self) -> bool:
        return self.is_open and not self.answers.is_saturated() and not self.admission.overload.holds_back()

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
