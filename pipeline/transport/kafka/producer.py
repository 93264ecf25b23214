"""An idempotent Kafka producer."""

import logging
import threading
import time
from typing import Any, Self

import kafka
from kafka import errors
from kafka.serializer import Serializer

from pipeline.transport.base import (
    Acknowledged,
    Acknowledgement,
    BrokerUnavailable,
    Partition,
    ProducerFatal,
    RecordRejected,
    TransportError,
)
from pipeline.transport.kafka.acknowledgements import Acknowledgements, Expected
from pipeline.transport.kafka.admission import MAX_REQUEST_BYTES, Admission
from pipeline.transport.kafka.clients import Clients
from pipeline.transport.kafka.errors import explain
from schemas.record import Encoded

BATCH_BYTES = 64 * 1024
LINGER_S = 0.001  # a partition has one batch under way at a time, so records gather by themselves under load
METADATA_TIMEOUT_S = 2.0
EXIT_TIMEOUT_S = 30.0

_log = logging.getLogger(__name__)


class _Null(Serializer):  # type: ignore[misc]  # the library has no types
    """Turns itself into a null value: the library refuses `None` beside a null key, which Kafka does not."""

    def serialize(self, topic: str, headers: object, data: Any) -> bytes | None:  # noqa: ARG002 -- the library's signature
        return None if data is self else data


class IdempotentProducer:
    """Sends records, each once and in order per partition."""

    def __init__(self, clients: Clients, admission: Admission):
        self._admission = admission
        self._null = _Null()
        self._closed = False
        self._sending = threading.Lock()
        self._acks = Acknowledgements()
        self._kafka = clients.make(
            kafka.KafkaProducer,
            {
                "acks": "all",
                "enable_idempotence": True,
                "linger_ms": int(LINGER_S * 1_000),
                "batch_size": BATCH_BYTES,
                "max_request_size": MAX_REQUEST_BYTES,
                "max_block_ms": int(METADATA_TIMEOUT_S * 1_000),
                "value_serializer": self._null,
                "metrics_enabled": False,
            },
        ).client
        self._acks.start()

    def send(self, partition: Partition, record: Encoded, on_ack: Acknowledgement) -> None:
        """Queues a record; the first record for a topic asks the broker about it.

        Raises:
            UnknownTopic: The topic or partition does not exist.
            RecordRejected: The record is too large for the topic, or the broker's ACLs do not let us write to it.
            ProducerFatal: The producer has to be rebuilt.
        """
        self._admission.admit(partition, record)
        if self._closed or self._is_fatal():
            raise ProducerFatal("the producer is closed or can never send again: make another")
        with self._sending:  # the order of the line has to be the order of the log
            expected = self._acks.expect(partition, on_ack)
            try:
                future = self._hand_over(partition, record)
            except TransportError:
                self._acks.forget(expected)
                raise
        future.add_callback(self._succeeded, expected)
        future.add_errback(self._failed, expected)

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return self._admission.partitions(topic)

    def partition_for(self, topic: str, key: bytes) -> Partition:
        """Where a record with that key belongs."""
        return self._admission.partition_for(topic, key)

    def flush(self, timeout_s: float) -> None:
        """Waits until everything sent was acknowledged or has failed.

        Raises:
            BrokerUnavailable: Something is still open after `timeout_s`.
        """
        left = self._acks.wait(timeout_s)
        if left:
            raise BrokerUnavailable(f"{left} records are not acknowledged after {timeout_s:.1f} s")

    def close(self, timeout_s: float) -> None:
        """Flushes for as long as it is given, then tells those still waiting that it let go."""
        if self._closed:
            return
        self._closed = True
        deadline_s = time.monotonic() + timeout_s
        left = self._acks.wait(timeout_s)
        if left:
            _log.warning("closing the producer with %d records not acknowledged", left)
            self._acks.settle_all(BrokerUnavailable("the producer was closed before the record was acknowledged"))
        self._acks.stop()
        ending = threading.Thread(target=self._end, name="kafka-producer-end", daemon=True)
        ending.start()
        ending.join(max(0.0, deadline_s - time.monotonic()))

    def __enter__(self) -> Self:
        """Nothing to do."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Closes, leaving a while for what was sent."""
        self.close(timeout_s=EXIT_TIMEOUT_S)

    def _end(self) -> None:
        """Ends the library's threads. Its own close flushes first, and raises without closing when that does not succeed."""
        self._kafka._sender.force_close()  # noqa: SLF001
        self._kafka._sender.join(EXIT_TIMEOUT_S)  # noqa: SLF001
        try:
            self._kafka.close(timeout=1.0)
        except errors.KafkaError as error:
            _log.warning("the producer's thread ends later: %s", error)

    def _hand_over(self, partition: Partition, record: Encoded) -> Any:
        try:
            return self._kafka.send(
                partition.topic,
                value=self._null if record.value is None else record.value,
                key=record.key,
                headers=list(record.headers),
                partition=partition.number,
            )
        except errors.IllegalStateError as error:
            raise ProducerFatal("the producer is closed: make another") from error
        except (errors.KafkaTimeoutError, ValueError) as error:  # the library does not find the partition
            self._admission.ask_again(partition.topic)
            raise BrokerUnavailable(f"nothing is known of {partition.topic}/{partition.number} yet") from error

    def _is_fatal(self) -> bool:
        return bool(self._kafka._transaction_manager.has_fatal_error())  # noqa: SLF001 -- the library tells nobody

    def _succeeded(self, expected: Expected, written: Any) -> None:
        if written.offset < 0:  # a repeat that the broker no longer remembers: it is there, nobody knows where
            self._acks.settle(expected, BrokerUnavailable("the record was written, but its offset is not known"))
        else:
            self._acks.settle(expected, Acknowledged(expected.partition, written.offset))

    def _failed(self, expected: Expected, error: Exception) -> None:
        failure = explain(error, f"producing to {expected.partition.topic}/{expected.partition.number}")
        if isinstance(failure, RecordRejected):  # what is known of the topic let it pass
            self._admission.forget(expected.partition.topic)
        elif self._is_fatal():
            failure = ProducerFatal(f"{failure}: the producer can never send again")
        self._acks.settle(expected, failure)
