"""Cancels from the control topic: applied to what runs, remembered for what is still in the log."""

from collections import OrderedDict
from collections.abc import Sequence

import structlog

from pipeline.transport.base import Consumer, Partition, Transport
from schemas.control import Cancel, decode_control

log = structlog.get_logger(__name__)

REMEMBERED = 100_000
"""Names of cancelled requests that are kept; each is at most 256 characters, so they stay below 64 MiB."""
POLL_RECORDS = 1_000
CATCH_UP_S = 10.0


class Cancels:
    """Reads the control topic from the time of the oldest request on, so that a cancel sent while no worker ran still holds."""

    def __init__(self, transport: Transport, topic: str):
        self._transport = transport
        self._partition = Partition(topic, 0)
        self._reader: Consumer | None = None
        self._since_ms: int | None = None
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._news: list[str] = []

    def start(self, now_ms: int) -> None:
        """Opens the reader at the time `now_ms` (epoch milliseconds)."""
        self._reader = self._transport.reader(frozenset({self._partition}))
        self._since_ms = now_ms

    def poll(self) -> Sequence[str]:
        """Takes the names that cancels were read for since the last call, without waiting; `holds` tells which count."""
        for record in self._consumer.poll(0.0, POLL_RECORDS):
            self._read(record.value, record.timestamp_ms)
        news, self._news = self._news, []
        return news

    def cover(self, timestamp_ms: int) -> None:
        """Makes sure that every cancel at or after `timestamp_ms` is known before a request of that time is admitted."""
        if self._since_ms is not None and timestamp_ms >= self._since_ms:
            return
        self._since_ms = timestamp_ms
        consumer, partitions = self._consumer, frozenset({self._partition})
        end = consumer.end_offsets(partitions)[self._partition]
        consumer.seek(self._partition, consumer.offsets_for_time(partitions, timestamp_ms)[self._partition])
        while consumer.position(self._partition) < end:
            records = consumer.poll(CATCH_UP_S, POLL_RECORDS)
            for record in records:
                self._read(record.value, record.timestamp_ms)
            if not records:
                log.warning("control_topic_slow", behind=end - consumer.position(self._partition))
                return

    def holds(self, custom_id: str, timestamp_ms: int) -> bool:
        """Tells whether a cancel was sent after a request of that name and time."""
        return self._latest.get(custom_id, -1) >= timestamp_ms

    def close(self, timeout_s: float) -> None:
        """Lets go of the reader."""
        if self._reader is not None:
            self._reader.close(timeout_s)

    @property
    def _consumer(self) -> Consumer:
        if self._reader is None:
            raise RuntimeError("start() comes first")
        return self._reader

    def _read(self, value: bytes | None, timestamp_ms: int) -> None:
        message = decode_control(value)
        if not isinstance(message, Cancel):
            return
        self._latest[message.custom_id] = timestamp_ms
        self._latest.move_to_end(message.custom_id)
        self._news.append(message.custom_id)
        if len(self._latest) > REMEMBERED:
            self._latest.popitem(last=False)
