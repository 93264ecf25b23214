"""Records that must land: in order per channel, resent until the log has acknowledged them, counted in bytes meanwhile.

The producer's acknowledgements arrive on its own thread and wait in a queue until `settle` takes them, so that everything
else here happens on the thread of the worker's loop.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import structlog

from pipeline.transport.base import Acknowledged, Partition, Producer, ProducerFatal, RecordRejected, TransportError, UnknownTopic
from schemas.record import Encoded

log = structlog.get_logger(__name__)

RESEND_AFTER_S = 0.5
RECORD_OVERHEAD_BYTES = 128
"""What a record weighs besides its key and value, so that many tiny ones count too."""


@dataclass(slots=True)
class Posted:
    """One record on its way. `sending` numbers the attempt, so that an acknowledgement of an earlier one is not taken for it.

    `posted_s` is when it was posted, and `acknowledged_s` when its acknowledgement came, whenever that is looked at.
    """

    partition: Partition
    record: Encoded
    on_landed: Callable[[int], None] | None
    posted_s: float
    acknowledged_s: float | None = None
    sending: int = 0
    offset: int | None = None

    def size_bytes(self) -> int:
        """What counts towards the cap."""
        return len(self.record.key or b"") + len(self.record.value or b"") + RECORD_OVERHEAD_BYTES


@dataclass(slots=True)
class Channel:
    """The records of one request, from the first un-acknowledged one on.

    Attributes:
        on_refused: Called once when the log refuses a record for good; the channel is dead after that and takes no more.
    """

    on_refused: Callable[[TransportError], None]
    waiting: deque[Posted] = field(default_factory=deque)
    resend_at_s: float | None = None
    is_dead: bool = False

    def is_empty(self) -> bool:
        """Tells whether everything posted has landed."""
        return not self.waiting


class Outbox:
    """Owns the producer. Not for use from several threads."""

    def __init__(self, make_producer: Callable[[], Producer], clock_s: Callable[[], float] = time.monotonic):
        self._make_producer = make_producer
        self._clock_s = clock_s
        self._producer: Producer | None = None
        self._acknowledgements: SimpleQueue[tuple[Channel, Posted, int, Acknowledged | TransportError, float]] = SimpleQueue()
        self._broken: dict[int, Channel] = {}
        self.unacknowledged_bytes = 0
        self.unacknowledged_records = 0

    def start(self) -> None:
        """Connects."""
        self._producer = self._make_producer()

    @property
    def producer(self) -> Producer:
        """The producer in use; a fatal one is replaced behind this name."""
        if self._producer is None:
            self._producer = self._make_producer()
        return self._producer

    def post(self, channel: Channel, partition: Partition, record: Encoded, on_landed: Callable[[int], None] | None = None) -> Posted | None:
        """Sends a record after everything else in its channel; `on_landed` gets its offset, once, in `settle`. A dead channel takes none."""
        if channel.is_dead:
            return None
        posted = Posted(partition, record, on_landed, self._clock_s())
        channel.waiting.append(posted)
        self.unacknowledged_bytes += posted.size_bytes()
        self.unacknowledged_records += 1
        if channel.resend_at_s is None:
            self._send(channel, posted)
        return posted

    def abandon(self, channel: Channel) -> None:
        """Forgets what is still open: the partition of the request belongs to somebody else now."""
        self._forget(channel)
        channel.is_dead = True

    def settle(self, now_s: float, wait_s: float = 0.0) -> None:
        """Takes the acknowledgements that have arrived, and sends again what has failed.

        Args:
            now_s: The monotonic clock.
            wait_s: How long to wait for the first one.
        """
        try:
            if wait_s > 0.0:
                self._acknowledge(*self._acknowledgements.get(timeout=wait_s), now_s)
            while True:
                self._acknowledge(*self._acknowledgements.get_nowait(), now_s)
        except Empty:
            pass
        for key, channel in list(self._broken.items()):
            if channel.resend_at_s is None or channel.resend_at_s <= now_s:
                self._resend(key, channel)

    def flush(self, timeout_s: float) -> None:
        """Pushes out what the producer still holds back to fill a batch.

        Raises:
            TransportError: Not everything landed in time.
        """
        self.producer.flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Lets go of the producer."""
        if self._producer is not None:
            self._producer.close(timeout_s)
            self._producer = None

    def _send(self, channel: Channel, posted: Posted) -> None:
        posted.sending += 1
        sending, put, clock_s = posted.sending, self._acknowledgements.put, self._clock_s
        try:
            self.producer.send(posted.partition, posted.record, lambda ack: put((channel, posted, sending, ack, clock_s())))
        except TransportError as error:
            put((channel, posted, sending, error, clock_s()))

    def _acknowledge(
        self, channel: Channel, posted: Posted, sending: int, ack: Acknowledged | TransportError, acknowledged_s: float, now_s: float
    ) -> None:
        if channel.is_dead or sending != posted.sending:
            return
        if isinstance(ack, Acknowledged):
            posted.offset, posted.acknowledged_s = ack.offset, acknowledged_s
            self._land(channel)
        elif isinstance(ack, (RecordRejected, UnknownTopic)):
            self._refuse(channel, ack)
        else:
            self._break(channel, ack, now_s)

    def _land(self, channel: Channel) -> None:
        while channel.waiting and channel.waiting[0].offset is not None:
            posted = channel.waiting.popleft()
            self._count_off(posted)
            if posted.on_landed is not None and posted.offset is not None:
                posted.on_landed(posted.offset)

    def _refuse(self, channel: Channel, error: TransportError) -> None:
        log.warning("record_refused", error=type(error).__name__, detail=str(error))
        self.abandon(channel)
        channel.on_refused(error)

    def _break(self, channel: Channel, error: TransportError, now_s: float) -> None:
        if isinstance(error, ProducerFatal) and self._producer is not None:
            log.warning("producer_rebuilt", detail=str(error))
            producer, self._producer = self._producer, None
            producer.close(0.0)
        if channel.resend_at_s is None:
            channel.resend_at_s = now_s + RESEND_AFTER_S
            self._broken[id(channel)] = channel

    def _resend(self, key: int, channel: Channel) -> None:
        del self._broken[key]
        channel.resend_at_s = None
        for posted in tuple(channel.waiting):
            posted.offset = None
            self._send(channel, posted)

    def _forget(self, channel: Channel) -> None:
        for posted in channel.waiting:
            self._count_off(posted)
        channel.waiting.clear()
        self._broken.pop(id(channel), None)

    def _count_off(self, posted: Posted) -> None:
        self.unacknowledged_bytes -= posted.size_bytes()
        self.unacknowledged_records -= 1
