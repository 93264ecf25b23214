"""A producer of the embedded log: callers queue, one thread writes many records per transaction."""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from pipeline.transport.base import (
    Acknowledged,
    Acknowledgement,
    BrokerUnavailable,
    Partition,
    ProducerFatal,
    RecordRejected,
    TransportError,
    UnknownTopic,
)
from pipeline.transport.embedded import catalogue, records
from pipeline.transport.embedded.catalogue import TopicInfo
from pipeline.transport.embedded.database import connect, explain, immediate, translated
from pipeline.transport.embedded.records import Row
from pipeline.transport.murmur2 import partition_of
from schemas.record import Encoded

QUEUE_BYTES = 256 * 1024 * 1024  # far above what a worker leaves unacknowledged; a caller past it waits for the writer
BATCH_RECORDS = 2_000  # per transaction: some 20 ms, so that other processes get their turn
BATCH_BYTES = 16 * 1024 * 1024
DELIVERY_TIMEOUT_S = 30.0  # how long a locked file is waited for
TRIM_INTERVAL_S = 10.0
RECORD_OVERHEAD_BYTES = 200  # of a queued record, so that empty ones count too

_log = logging.getLogger(__name__)


class _Queued(NamedTuple):
    partition: Partition
    partition_id: int
    row: Row
    on_ack: Acknowledgement


class EmbeddedProducer:
    """Appends records in the order in which they were sent, and acknowledges them once their transaction is committed."""

    def __init__(self, path: Path):
        self._topics: dict[str, TopicInfo] = {}
        self._lookup = connect(path)
        self._writer = connect(path)
        self._lookup_lock = threading.Lock()
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._writing = 0
        self._trim_s = time.monotonic() + TRIM_INTERVAL_S
        self._closing = False
        self._state = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="embedded-producer", daemon=True)

    def start(self) -> None:
        """Starts the writer."""
        self._thread.start()

    def send(self, partition: Partition, record: Encoded, on_ack: Acknowledgement) -> None:
        """Queues a record and returns at once, unless a quarter of a gigabyte is queued already.

        Raises:
            UnknownTopic: The topic or partition does not exist.
            RecordRejected: The record is too large.
            ProducerFatal: The producer is closed.
        """
        topic = self._known(partition)
        row = records.pack(record)
        if row.size_bytes > topic.max_record_bytes:
            raise RecordRejected(f"record of {row.size_bytes} bytes; {partition.topic} takes {topic.max_record_bytes}: raise max.message.bytes")
        with self._state:
            while self._queued_bytes > QUEUE_BYTES and not self._closing and threading.current_thread() is not self._thread:
                self._state.wait()
            if self._closing:
                raise ProducerFatal("the producer is closed")
            self._queue.append(_Queued(partition, topic.partition_ids[partition.number], row, on_ack))
            self._queued_bytes += row.size_bytes + RECORD_OVERHEAD_BYTES
            self._state.notify_all()

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return len(self._info(topic).partition_ids)

    def partition_for(self, topic: str, key: bytes) -> Partition:
        """Where a record with that key belongs."""
        return Partition(topic, partition_of(key, self.partitions(topic)))

    def flush(self, timeout_s: float) -> None:
        """Waits until everything sent was acknowledged or has failed.

        Raises:
            BrokerUnavailable: Something is still open after `timeout_s`.
        """
        with self._state:
            if not self._state.wait_for(lambda: not self._queue and not self._writing, timeout_s):
                raise BrokerUnavailable(f"{len(self._queue) + self._writing} records are not acknowledged after {timeout_s:.1f} s")

    def close(self, timeout_s: float) -> None:
        """Flushes for as long as it is given, then tells those still waiting that it let go."""
        deadline_s = time.monotonic() + timeout_s
        try:
            self.flush(timeout_s)
        except BrokerUnavailable as error:
            _log.warning("closing the producer: %s", error)
        with self._state:
            self._closing = True
            dropped, self._queue = self._queue, deque()
            self._state.notify_all()
        for queued in dropped:
            _acknowledge(queued, BrokerUnavailable("the producer was closed before the record was written"))
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
        with self._lookup_lock:
            self._lookup.close()

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes, leaving the writer a while to finish."""
        self.close(timeout_s=DELIVERY_TIMEOUT_S)

    def _known(self, partition: Partition) -> TopicInfo:
        topic = self._info(partition.topic)
        if not 0 <= partition.number < len(topic.partition_ids):
            raise UnknownTopic(f"{partition.topic} has {len(topic.partition_ids)} partitions, there is no {partition.number}")
        return topic

    def _info(self, topic: str) -> TopicInfo:
        known = self._topics.get(topic)
        if known is None:
            with self._lookup_lock, translated():
                known = self._topics[topic] = catalogue.info(self._lookup, topic)
        return known

    def _run(self) -> None:
        while batch := self._next_batch():
            for queued, outcome in self._write(batch):
                _acknowledge(queued, outcome)
            with self._state:
                self._writing = 0
                self._state.notify_all()
            if time.monotonic() >= self._trim_s and self._trim():
                self._trim_s = time.monotonic() + TRIM_INTERVAL_S
        self._writer.close()

    def _next_batch(self) -> list[_Queued]:
        """Waits for records and takes a transaction's worth of them; nothing means the end."""
        batch: list[_Queued] = []
        batch_bytes = 0
        with self._state:
            self._state.wait_for(lambda: self._queue or self._closing)
            while self._queue and len(batch) < BATCH_RECORDS and batch_bytes < BATCH_BYTES:
                batch.append(self._queue.popleft())
                batch_bytes += batch[-1].row.size_bytes + RECORD_OVERHEAD_BYTES
            self._queued_bytes -= batch_bytes
            self._writing = len(batch)
        return batch

    def _write(self, batch: Sequence[_Queued]) -> list[tuple[_Queued, Acknowledged | TransportError]]:
        """Appends a batch in one transaction: all of it is in the log, or nothing."""
        by_partition: dict[int, list[_Queued]] = {}
        for queued in batch:
            by_partition.setdefault(queued.partition_id, []).append(queued)
        try:
            with immediate(self._writer, DELIVERY_TIMEOUT_S, lambda: self._closing):
                first = {p: records.append(self._writer, p, [queued.row for queued in share]) for p, share in by_partition.items()}
        except sqlite3.Error as error:
            failure = explain(error)
            _log.warning("%d records were not written: %s", len(batch), failure)
            return [(queued, failure) for queued in batch]
        return [(queued, Acknowledged(queued.partition, first[p] + n)) for p, share in by_partition.items() for n, queued in enumerate(share)]

    def _trim(self) -> bool:
        """Deletes one chunk of what is due from each partition that this producer writes to; True once nothing is left."""
        finished = True
        now_ms = time.time_ns() // 1_000_000
        for topic in list(self._topics.values()):
            older_than_ms = 0 if topic.retention_ms is None else now_ms - topic.retention_ms
            for partition_id in topic.partition_ids:
                try:
                    with immediate(self._writer):
                        finished &= records.trim(self._writer, partition_id, older_than_ms, topic.retention_bytes) < records.TRIM_CHUNK
                except sqlite3.Error as error:
                    _log.warning("old records stay for now: %s", explain(error))
                    return True
        return finished


def _acknowledge(queued: _Queued, outcome: Acknowledged | TransportError) -> None:
    try:
        queued.on_ack(outcome)
    except Exception:  # noqa: BLE001 -- a caller's mistake must not end the thread that writes for all callers
        _log.exception("an acknowledgement callback raised")
