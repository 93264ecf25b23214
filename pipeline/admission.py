"""The last gate before an engine: may this request go in, now, at this worker?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.answers import Answers
from pipeline.candidate import Candidate
from pipeline.delivery.cancels import Cancels
from pipeline.overload import Overload
from pipeline.quota.quotas import Quotas
from pipeline.telemetry import Metrics
from schemas.errors import Cancelled, DeadlineExceeded, PenstockError, RateLimited


@dataclass(slots=True, kw_only=True)
class Admission:
    """Judges the candidates of one poll together, so that shared rates cost one question for all of them.

    Whoever is turned away here may have begun at another worker: it is answered with an attempt of its own.
    """

    answers: Answers
    cancels: Cancels
    overload: Overload
    quotas: Quotas
    metrics: Metrics
    clock_s: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def decide(self, candidates: Sequence[Candidate]) -> None:
        """Admits, answers or rejects each, in their order."""
        now_s, wall_ms = self.clock_s(), self.wall_ms()
        timely: list[tuple[Candidate, float | None]] = []
        for candidate in candidates:
            deadline_ms = candidate.request.deadline_ms
            left_s = None if deadline_ms is None else (deadline_ms - wall_ms) / 1000
            if (fault := self._fault(candidate, left_s)) is not None:
                self.answers.reject(fault, candidate)
                continue
            timely.append((candidate, None if left_s is None else now_s + left_s))
        wanted = [(candidate.tenant, None if candidate.stored is not None else candidate.job) for candidate, _ in timely]
        for (candidate, deadline_s), verdict in zip(timely, self.quotas.reserve(wanted, now_s), strict=True):
            if isinstance(verdict, RateLimited):
                self.answers.reject(verdict, candidate)
            elif candidate.stored is not None:
                self.answers.repeat(candidate, candidate.stored)
            else:
                self.answers.admit(candidate, verdict, deadline_s)

    def _fault(self, candidate: Candidate, left_s: float | None) -> PenstockError | None:
        request = candidate.request
        if self.cancels.holds(request.custom_id, request.timestamp_ms):
            return Cancelled("the request was cancelled")
        if left_s is not None and left_s <= 0.0:
            return DeadlineExceeded("the deadline passed before the request was taken up")
        if candidate.stored is not None:
            return None
        refusal = self.overload.refusal(request.model, left_s)
        if refusal is None:
            self.overload.note_admitted(request.model, candidate.job)
            return None
        reason, error = refusal
        self.metrics.overloaded.labels(reason).inc()
        return error
