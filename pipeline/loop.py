"""The worker's loop: short verbs, one thread. Every other part is told the time."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from pipeline.admission import Admission
from pipeline.answers import Answers
from pipeline.delivery.assignments import Assignments
from pipeline.delivery.cancels import Cancels
from pipeline.delivery.outbox import Outbox
from pipeline.engine.base import Engine, EngineStats
from pipeline.intake import Intake
from pipeline.offline.flight.desk import FIRST_KEY, Desk
from pipeline.telemetry import Metrics
from pipeline.transport.base import Partition, TransportError

log = structlog.get_logger(__name__)

IDLE_WAIT_S = 0.05
"""How long an idle worker waits for a record; also how late it notices that it should stop."""
CALLERS_WAIT_S = 0.005
"""The same while somebody may send rows through the bulk door, which can't wake the wait for records."""
SETTLE_WAIT_S = 0.002
CLOSE_S = 5.0
OBSERVE_S = 0.05
"""How often gauges are brought up to date: nobody reads them at every step."""


class Phase(StrEnum):
    """What the loop is at. `STARTING` and `CLOSED` belong to the process around it."""

    RUNNING = "running"
    DRAINING = "draining"
    DONE = "done"


@dataclass(slots=True, kw_only=True)
class Loop:
    """Where the parts meet: consume → admit → step → emit → commit.

    Attributes:
        beat_s: When the last step began; other threads read it.
        is_ready: Whether the group has once given this worker its partitions, or the knowledge that there are none; likewise. A later
            rebalance does not take it back: the worker goes on serving what it keeps.
        readings: The engines' gauges by model, a moment ago at most; likewise.
    """

    intake: Intake
    admission: Admission
    answers: Answers
    assignments: Assignments
    cancels: Cancels
    outbox: Outbox
    desk: Desk
    engines: Mapping[str, Engine]
    metrics: Metrics
    drain_s: float
    clock_s: Callable[[], float] = time.monotonic
    phase: Phase = Phase.RUNNING
    beat_s: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    readings: Mapping[str, EngineStats] = field(default_factory=dict)
    _drain_until_s: float = 0.0
    _observed_s: float = -math.inf

    def run(self, wants_stop: Callable[[], bool], wants_out: Callable[[], bool]) -> None:
        """Steps until it is told to stop and has drained.

        Args:
            wants_stop: Asked every step; from the first yes on nothing new is taken, and what runs may end.
            wants_out: Asked every step; a yes ends the drain where it is. What has not ended stays in the log.
        """
        while self.phase is not Phase.DONE:
            now_s = self.clock_s()
            if self.phase is Phase.RUNNING and wants_stop():
                self._start_draining(now_s)
            if self.phase is Phase.DRAINING and (wants_out() or now_s >= self._drain_until_s or not len(self.answers.requests)):
                self.phase = Phase.DONE
                break
            self.step(now_s)

    def step(self, now_s: float) -> None:
        """Runs one step of everything."""
        self.beat_s = now_s
        self.assignments.follow(now_s, on_leaving=self._prepare_leaving, on_gone=self.answers.hand_back)
        self.intake.pull(self._idle_wait_s() if self._is_idle() else self._patience_s(now_s))
        self.desk.pull(now_s)
        self.admission.quotas.beat(now_s)
        self.intake.cancel_named()
        self.answers.expire(now_s)
        self._compute()
        self.outbox.settle(now_s)  # before the flush: attempts that were acknowledged during the step may speak now, not a step later
        ended_s = self.clock_s()
        self.answers.flush(ended_s)
        self.desk.deliver(ended_s)
        if self._only_waits_for_the_log():
            self.outbox.settle(now_s, SETTLE_WAIT_S)
        self.assignments.commit(now_s, at_once=not len(self.answers.requests) and self._is_idle())
        self.is_ready = self.is_ready or self.assignments.is_settled()
        if now_s - self._observed_s >= OBSERVE_S:
            self._observed_s = now_s
            self._observe()

    def close(self) -> None:
        """Hands off in order: let what was said land, commit, leave the group, let go of the log."""
        deadline_s = self.clock_s() + CLOSE_S
        self.desk.close()
        try:
            self.outbox.flush(CLOSE_S)
        except TransportError as error:
            log.warning("left_unacknowledged", records=self.outbox.unacknowledged_records, detail=str(error))
        while self.outbox.unacknowledged_records and self.clock_s() < deadline_s:
            self.outbox.settle(self.clock_s(), SETTLE_WAIT_S)
        log.info("closing", unfinished=len(self.answers.requests))
        self.answers.hand_back(self.assignments.partitions)
        self.assignments.leave(CLOSE_S)
        self.cancels.close(CLOSE_S)
        self.outbox.close(CLOSE_S)
        self.admission.quotas.close()

    def _start_draining(self, now_s: float) -> None:
        self.phase = Phase.DRAINING
        self._drain_until_s = now_s + self.drain_s
        self.intake.is_open = False
        self.desk.drain()
        self.answers.hand_back(self.assignments.partitions, unstarted_only=True)
        log.info("draining", running=len(self.answers.requests), budget_s=self.drain_s)

    def _prepare_leaving(self, partitions: frozenset[Partition]) -> None:
        self.answers.hand_back(partitions, unstarted_only=True)

    def _compute(self) -> None:
        if self.answers.is_saturated():
            return
        for name, engine in self.engines.items():
            started_s = self.clock_s()
            if engine.has_work() and engine.stats().waits_until_s <= started_s:
                outputs = engine.step(started_s)
                ended_s = self.clock_s()
                stats = engine.stats()
                self.metrics.observe_step(stats, ended_s - started_s)
                self.admission.overload.note_step(name, stats, ended_s - started_s)
                for output in outputs:
                    if output.key >= FIRST_KEY:
                        self.desk.take(output)
                    else:
                        self.answers.take(output, ended_s)

    def _patience_s(self, now_s: float) -> float:
        """How long to wait for arrivals where every engine would rather have more in its next step."""
        if self.answers.is_saturated():
            return 0.0
        until_s = min((engine.stats().waits_until_s for engine in self.engines.values() if engine.has_work()), default=0.0)
        return min(max(until_s - now_s, 0.0), IDLE_WAIT_S)

    def _idle_wait_s(self) -> float:
        return CALLERS_WAIT_S if self.desk.has_callers else IDLE_WAIT_S

    def _is_idle(self) -> bool:
        return not self.outbox.unacknowledged_records and not self._has_work()

    def _only_waits_for_the_log(self) -> bool:
        return bool(self.outbox.unacknowledged_records) and (self.answers.is_saturated() or not self._has_work())

    def _has_work(self) -> bool:
        return any(engine.has_work() for engine in self.engines.values())

    def _observe(self) -> None:
        self.readings = {name: engine.stats() for name, engine in self.engines.items()}
        self.metrics.observe_engines(tuple(self.readings.values()))
        self.metrics.unacknowledged_bytes.set(self.outbox.unacknowledged_bytes)
        self.metrics.partitions.set(len(self.assignments.partitions))
        self.metrics.open_offsets.set(self.assignments.open_offsets(self.assignments.partitions))
