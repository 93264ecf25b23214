"""What is written where there is no answer: the error of a request that never begins, and dead letters."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pipeline.delivery.outbox import Channel, Outbox
from pipeline.delivery.routes import Routes
from pipeline.telemetry import Metrics
from pipeline.transport.base import Record, TransportError
from schemas.codec import Refusal, ResultLine, encode_event, encode_result, error_event
from schemas.dead_letter import DeadLetter, encode_dead_letter
from schemas.errors import PenstockError
from schemas.record import Encoded, Origin, ReplyAddress

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Refusals:
    """Writes them, and says when the log has them."""

    routes: Routes
    outbox: Outbox
    metrics: Metrics

    def refuse(self, refusal: Refusal, record: Record, tenant: str, epoch: int, on_settled: Callable[[], None]) -> None:
        """Answers a request that never begins, and keeps its record where it is dead.

        Args:
            refusal: What is wrong with it.
            record: What it came in.
            tenant: Whose it is.
            epoch: The epoch of its partition.
            on_settled: Called once when nothing is left to do for it.
        """
        error, reply, origin = refusal.error, refusal.reply, refusal.origin

        def settled(_: int = 0) -> None:
            self.metrics.requests.labels(error.code).inc()
            log.info("request_refused", origin=str(origin), code=error.code, param=error.param)
            on_settled()

        channel = Channel(on_refused=lambda fault: self.give_up(origin, fault, settled))
        is_readable = reply.custom_id is not None or reply.correlation_id is not None
        if refusal.dead_letter or not is_readable:
            self.bury(channel, record, error, origin, attempts=1, on_landed=None if is_readable else settled)
        if is_readable:
            route = self.routes.fallback(reply, tenant, self.outbox.producer)
            self.outbox.post(channel, route.partition, _refusal_record(error, reply, origin, epoch), settled)

    def bury(
        self, channel: Channel, record: Record, error: PenstockError, origin: Origin, *, attempts: int, on_landed: Callable[[int], None] | None
    ) -> None:
        """Writes a record to the dead letters."""
        letter = DeadLetter.of(error, origin, attempts=attempts, failed_at_ms=time.time_ns() // 1_000_000)
        self.metrics.dead_letters.labels(error.code).inc()
        encoded = encode_dead_letter(record.key, record.value, record.headers, letter)
        self.outbox.post(channel, self.routes.dead_letters(), encoded, on_landed)

    def give_up(self, origin: Origin, fault: TransportError, settled: Callable[[], None]) -> None:
        """Goes on without an answer: the log refuses even the dead letter."""
        log.error("dead_letter_refused", origin=str(origin), error=type(fault).__name__, detail=str(fault))
        settled()


def _refusal_record(error: PenstockError, reply: ReplyAddress, origin: Origin, epoch: int) -> Encoded:
    name = reply.custom_id or reply.correlation_id or ""
    if reply.stream:
        return encode_event(error_event(error), custom_id=name, correlation_id=reply.correlation_id)
    line = ResultLine.refused(
        error, line_id=f"batch_req_{origin}", custom_id=reply.custom_id, request_id=str(origin), origin=str(origin), attempt=epoch
    )
    return encode_result(line, correlation_id=reply.correlation_id)
