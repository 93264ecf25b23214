"""Every request from admission to its last word: opened, fed with output, ended once, and its offset done when that is acknowledged."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from operator import attrgetter

from pipeline.accounting import count_end, count_tokens, tell_end
from pipeline.candidate import Candidate
from pipeline.delivery.answer import answer_for
from pipeline.delivery.assignments import Assignments
from pipeline.delivery.flush_rule import FlushRule
from pipeline.delivery.outbox import Channel, Outbox, Posted
from pipeline.delivery.requests import InFlight, Requests
from pipeline.delivery.routes import Routes
from pipeline.engine.base import RequestKey, StepOutput
from pipeline.first_tokens import FirstTokens
from pipeline.quota.quotas import Quotas, Reservation
from pipeline.refusals import Refusals
from pipeline.response_cache import Recording, ResponseCache, Stored
from pipeline.scheduling.sequence import Lane
from pipeline.telemetry import Metrics
from pipeline.transport.base import Partition, Record, TransportError
from schemas.codec import Refusal
from schemas.errors import Cancelled, DeadlineExceeded, EngineError, PenstockError
from schemas.events import Usage
from schemas.record import Origin

WIDENING = 8.0
"""How many intervals longer tokens wait when the log is as far behind as it may be."""


@dataclass(slots=True, kw_only=True)
class Answers:
    """Owns the registry of requests; the only place where a request ends.

    Attributes:
        flush_rule: When tokens become an event while the log keeps up; the interval widens as it falls behind.
        max_unacknowledged_bytes: Above this the worker stops decoding and taking in.
        attempts: How often a request that fails in the engine is tried.
        cache: Where answers are kept to be given again; None where they are not.
    """

    requests: Requests
    routes: Routes
    outbox: Outbox
    assignments: Assignments
    quotas: Quotas
    metrics: Metrics
    first_tokens: FirstTokens
    flush_rule: FlushRule
    max_unacknowledged_bytes: int
    attempts: int
    cache: ResponseCache | None = None
    clock_s: Callable[[], float] = time.monotonic
    refusals: Refusals = field(init=False)
    _keys: Iterator[int] = field(default_factory=count)
    _talking: dict[RequestKey, InFlight] = field(default_factory=dict)
    """Those with tokens that no event has carried yet."""
    _flushed_s: dict[Lane, float] = field(default_factory=lambda: dict.fromkeys(Lane, -math.inf))

    def __post_init__(self) -> None:
        """Shares what it writes with."""
        self.refusals = Refusals(routes=self.routes, outbox=self.outbox, metrics=self.metrics)

    def admit(self, candidate: Candidate, reservation: Reservation, deadline_s: float | None) -> None:
        """Opens the answer and queues the job."""
        inflight = self._register(candidate, deadline_s)
        inflight.reservation = reservation
        inflight.recording = None if candidate.cache_key is None else Recording(candidate.cache_key)
        inflight.engine.add(inflight.key, replace(inflight.job, deadline_s=deadline_s), inflight.lane, candidate.arrival.arrived_s)
        self.metrics.prompt_tokens.inc(inflight.job.prompt_tokens)

    def repeat(self, candidate: Candidate, stored: Stored) -> None:
        """Gives an answer again that was given before: the same events, without the engine."""
        inflight = self._register(candidate, None)
        for output in stored.outputs(inflight.key):
            inflight.answer.take(output)
        inflight.output_tokens = stored.usage.completion_tokens
        self._close(inflight, str(stored.finish_reason), stored.usage)
        inflight.answer.end(stored.usage)

    def reject(self, error: PenstockError, candidate: Candidate) -> None:
        """Ends a request that another worker may have begun: the error needs an attempt, or readers of that one would not take it."""
        self.fail(self._register(candidate, None), error)

    def refuse(self, refusal: Refusal, record: Record, tenant: str) -> None:
        """Answers a request that never begins, and keeps its record where it is dead."""
        self.refusals.refuse(refusal, record, tenant, self.epoch(record.partition), partial(self._offset_done, refusal.origin))

    def take(self, output: StepOutput, now_s: float) -> None:
        """Adds the output of one step to its answer, and ends it with its last choice."""
        inflight = self.requests.get(output.key)
        if inflight is None or inflight.has_ended:
            return
        if output.error is not None:
            self._try_again(inflight, output.error, now_s)
            return
        if output.token_ids or output.text:
            count_tokens(self.metrics, inflight, len(output.token_ids), now_s)
        inflight.answer.take(output)
        if inflight.recording is not None:
            inflight.recording.take(output)
        self._talking[inflight.key] = inflight
        if output.finish_reason is not None:
            inflight.open_choices -= 1
            if inflight.open_choices == 0:
                self._end(inflight, output, now_s)

    def flush(self, now_s: float) -> None:
        """Sends the tokens that have waited long enough, live streams' first; longer while the log is behind."""
        depth = self.outbox.unacknowledged_bytes / self.max_unacknowledged_bytes
        rule = self.flush_rule.widened(1.0 + WIDENING * depth)
        due = [lane for lane, flushed_s in self._flushed_s.items() if now_s - flushed_s >= rule.interval_of(lane)]
        self._flushed_s.update(dict.fromkeys(due, now_s))
        for inflight in sorted(self._talking.values(), key=attrgetter("lane")):
            if inflight.answer.flush(is_due=inflight.lane in due, max_tokens=rule.tokens):
                del self._talking[inflight.key]

    def expire(self, now_s: float) -> None:
        """Ends the requests whose deadline has passed."""
        for inflight in self.requests.expired(now_s):
            self.fail(inflight, DeadlineExceeded("the deadline passed before the request ended"))

    def cancel(self, inflight: InFlight) -> None:
        """Ends a request because its requester wants so."""
        if not inflight.has_ended:
            self.fail(inflight, Cancelled("the request was cancelled"))

    def fail(self, inflight: InFlight, error: PenstockError) -> None:
        """Ends a request with an error."""
        inflight.engine.cancel(inflight.key)
        self._close(inflight, error.code)
        inflight.answer.fail(error)

    def hand_back(self, partitions: frozenset[Partition], *, unstarted_only: bool = False) -> None:
        """Drops the requests of these partitions without a word: whoever owns the partitions next answers them, and their twins elsewhere too."""
        for inflight in self.requests:
            inflight.joined = [origin for origin in inflight.joined if Partition(origin.topic, origin.partition) not in partitions]
            if inflight.partition not in partitions or (unstarted_only and (inflight.has_ended or inflight.first_token_s is not None)):
                continue
            inflight.engine.cancel(inflight.key)
            if inflight.reservation is not None:
                self.quotas.release(inflight.reservation, self.clock_s())
            self.outbox.abandon(inflight.channel)
            self._talking.pop(inflight.key, None)
            self.requests.drop(inflight.key)
            for origin in inflight.joined:
                self._offset_done(origin)

    def is_saturated(self) -> bool:
        """Tells whether the log is too far behind to decode on."""
        return self.outbox.unacknowledged_bytes > self.max_unacknowledged_bytes

    def epoch(self, partition: Partition) -> int:
        """The epoch of a partition that is owned."""
        return self.assignments.ledger(partition).epoch

    def _register(self, candidate: Candidate, deadline_s: float | None) -> InFlight:
        key = next(self._keys)
        request, record, route = candidate.request, candidate.record, candidate.route
        channel = Channel(on_refused=lambda fault: self._reply_refused(key, fault))
        answer = answer_for(
            request,
            route,
            self.epoch(record.partition),
            self.outbox,
            channel,
            on_first=partial(self._first_landed, key),
            on_settled=partial(self._settled, key),
        )
        inflight = InFlight(
            key=key,
            request=request,
            record=record,
            tenant=candidate.tenant,
            lane=candidate.lane,
            engine=candidate.engine,
            job=candidate.job,
            route=route,
            channel=channel,
            arrival=candidate.arrival,
            admitted_s=self.clock_s(),
            answer=answer,
            open_choices=candidate.job.choices,
            deadline_s=deadline_s,
        )
        self.requests.add(inflight)
        answer.open()
        return inflight

    def _try_again(self, inflight: InFlight, error: PenstockError, now_s: float) -> None:
        if isinstance(error, EngineError) and inflight.attempts < self.attempts:
            inflight.attempts += 1
            inflight.output_tokens, inflight.open_choices, inflight.first_token_s = 0, inflight.job.choices, None
            if inflight.recording is not None:
                inflight.recording.restart()
            inflight.answer.restart("the engine failed on this request and tries it again")
            inflight.engine.add(inflight.key, inflight.job, inflight.lane, now_s)
            return
        if error.retryable:
            self._dead_letter(inflight, error)
        self.fail(inflight, error)

    def _end(self, inflight: InFlight, last: StepOutput, now_s: float) -> None:
        usage = last.usage or Usage(prompt_tokens=inflight.job.prompt_tokens, completion_tokens=inflight.output_tokens)
        inflight.output_tokens = usage.completion_tokens
        count_end(self.metrics, inflight, now_s)
        self._close(inflight, str(last.finish_reason), usage)
        self._keep(inflight, usage, now_s)
        inflight.answer.end(usage)

    def _keep(self, inflight: InFlight, usage: Usage, now_s: float) -> None:
        if self.cache is not None and inflight.recording is not None:
            self.cache.put(inflight.recording.key, inflight.recording.finish(usage, now_s))
            self.metrics.cache_bytes.set(self.cache.size_bytes)

    def _close(self, inflight: InFlight, outcome: str, usage: Usage | None = None) -> None:
        inflight.outcome = outcome
        self._talking.pop(inflight.key, None)
        now_s = self.clock_s()
        self._settle(inflight, usage, now_s)
        tell_end(self.metrics, inflight, outcome, now_s, is_cached=usage is not None and usage.is_cached)

    def _settle(self, inflight: InFlight, usage: Usage | None, now_s: float) -> None:
        """Tells the tenant's rate what was used. A request that failed before its first token used nothing."""
        if inflight.reservation is None:
            return
        has_run = usage is not None or inflight.first_token_s is not None
        prompt_tokens = inflight.job.prompt_tokens if usage is None else usage.prompt_tokens
        self.quotas.settle(inflight.reservation, prompt_tokens=prompt_tokens if has_run else 0, output_tokens=inflight.output_tokens, now_s=now_s)
        inflight.reservation = None

    def _first_landed(self, key: RequestKey, posted: Posted) -> None:
        if (inflight := self.requests.get(key)) is not None:
            self.first_tokens.landed(inflight, posted)

    def _settled(self, key: RequestKey) -> None:
        inflight = self.requests.get(key)
        if inflight is None:
            return
        self.requests.settle(key, self.clock_s())
        self._offset_done(inflight.request.origin)
        for origin in inflight.joined:
            self._offset_done(origin)

    def _offset_done(self, origin: Origin) -> None:
        partition = Partition(origin.topic, origin.partition)
        if partition in self.assignments.partitions:
            self.assignments.ledger(partition).done(origin.offset)

    def _reply_refused(self, key: RequestKey, fault: TransportError) -> None:
        """The log takes no more records of this answer: what remains is the dead letter."""
        inflight = self.requests.get(key)
        if inflight is None:
            return
        if not inflight.has_ended:
            inflight.engine.cancel(key)
            self._close(inflight, EngineError.code)
        inflight.channel = Channel(on_refused=lambda again: self.refusals.give_up(inflight.request.origin, again, lambda: self._settled(key)))
        error = EngineError(f"the reply topic refuses the answer: {type(fault).__name__}")
        self._dead_letter(inflight, error, on_landed=lambda _: self._settled(key))

    def _dead_letter(self, inflight: InFlight, error: PenstockError, on_landed: Callable[[int], None] | None = None) -> None:
        self.refusals.bury(inflight.channel, inflight.record, error, inflight.request.origin, attempts=inflight.attempts, on_landed=on_landed)
